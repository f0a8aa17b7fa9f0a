print("Content-Type: text/plain\n")
for _, name in ipairs { "SCRIPT_FILENAME", "QUERY_STRING", "REQUEST_METHOD", "SCRIPT_NAME", "REQUEST_URI", "DOCUMENT_ROOT",
  "SERVER_PROTOCOL", "SERVER_SOFTWARE", "REMOTE_ADDR", "SERVER_NAME", "HTTP_HOST", "HTTP_USER_AGENT", "HTTP_ACCEPT",
  "HTTP_COOKIE", "HTTP_REFERER" } do
  print(name .. "=" .. (os.getenv(name) or ""))
end
