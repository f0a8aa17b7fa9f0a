#!/usr/bin/env lua5.4
-- A form with a file, as an ordinary CGI script: GET shows it, POST says what was sent.

--- The parts of a multipart body (RFC 7578), by their names.
local function parts(body, boundary)
  local found, delimiter = {}, "\r\n--" .. boundary
  body = "\r\n" .. body
  local _, at = body:find(delimiter, 1, true)
  while at and body:sub(at + 1, at + 2) == "\r\n" do
    local first, last = body:find(delimiter, at, true)
    if not first then break end
    local head, content = body:sub(at + 3, first - 1):match("^(.-)\r\n\r\n(.*)$")
    if head then
      found[head:match('name="([^"]*)"') or ""] = { filename = head:match('filename="([^"]*)"'), content = content }
    end
    at = last
  end
  return found
end

if os.getenv("REQUEST_METHOD") ~= "POST" then
  print("Content-Type: text/html; charset=utf-8\n")
  print('<!doctype html><title>Upload</title><form method="post" enctype="multipart/form-data">')
  print('<input name="name"> <input name="file" type="file"> <button>Send</button></form>')
  return
end
local boundary = (os.getenv("CONTENT_TYPE") or ""):match('boundary="?([^";]+)')
local form = boundary and parts(io.read("a"), boundary) or {}
print("Content-Type: text/plain; charset=utf-8\n")
print("name: " .. (form.name and form.name.content or "?"))
if form.file then
  print("file: " .. (form.file.filename or "?") .. ", " .. #form.file.content .. " bytes")
end
