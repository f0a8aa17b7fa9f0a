-- Does what a test asks for. The same in all languages.
local env = os.getenv
local what = (env "QUERY_STRING" or ""):match "^do=(%w+)"

local function say(head, ...)
  io.write(head, "\n\n", ...)
end

local function body_length()
  local length = 0
  while true do
    local block = io.read(65536)
    if not block then return length end
    length = length + #block
  end
end

if what == "info" then
  say("Content-Type: text/plain\nX-Method: " .. env "REQUEST_METHOD")
  for _, name in ipairs { "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "SERVER_PROTOCOL",
    "HTTP_X_TEST", "HTTP_AUTHORIZATION", "SCRIPT_FILENAME" } do
    io.write(name, "=", env(name) or "", "\n")
  end
elseif what == "echo" then
  local text = io.read "*a"
  say("Content-Type: text/plain", env "REQUEST_METHOD", " ", env "CONTENT_TYPE", " ", env "CONTENT_LENGTH" or "", " ", text)
elseif what == "length" then
  local length = body_length()
  say("Content-Type: text/plain", length)
elseif what == "cookies" then
  say("Content-Type: text/plain\nSet-Cookie: a=1\nSet-Cookie: b=2", "cookies")
elseif what == "local" then
  say("Location: " .. env "SCRIPT_NAME" .. "/there?do=info", "")
elseif what == "client" then
  say("Location: http://other.example/x", "")
elseif what == "nothing" then
  say("Status: 204 No Content", "")
elseif what == "talkative" then
  say("Status: 204 No Content", "this is nobody's business")
elseif what == "same" then
  say("Status: 304 Not Modified\nETag: \"x\"", "")
elseif what == "status" then
  say("Status: 404 Gone Fishing\nContent-Type: text/plain", "fishing")
elseif what == "errors" then
  io.stderr:write "to the error log\n"
  say("Content-Type: text/plain", "fine")
  io.stderr:write "to the error log, once more\n"
elseif what == "pieces" then
  for piece in ("Content-Type: text/plain\n\npieces"):gmatch "." do
    io.write(piece)
    io.flush()
  end
elseif what == "slow" then
  os.execute "sleep 0.5"
  say("Content-Type: text/plain", "slept")
elseif what == "down" then
  say("Content-Type: application/octet-stream", "")
  local block = ("0123456789abcdef"):rep(4096)
  for _ = 1, 1600 do io.write(block) end
elseif what == "endless" then
  say("Content-Type: application/octet-stream", "")
  local block = ("0123456789abcdef"):rep(4096)
  for _ = 1, 8000 do
    if not io.write(block) then break end
  end
end
