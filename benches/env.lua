-- Reads what a framework reads before it begins.
local names = {"REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "SCRIPT_NAME", "SCRIPT_FILENAME", "CONTENT_LENGTH",
  "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "GATEWAY_INTERFACE"}
for number = 11, 29 do names[#names + 1] = "HTTP_X_" .. number end
io.write("Content-Type: text/plain\n\n")
for _, name in ipairs(names) do io.write(name, "=", os.getenv(name) or "", "\n") end
