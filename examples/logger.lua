#!/usr/bin/env fcgi-lua
-- A Logger: lines of the web server's log come in. Those of requests that failed go to the error log.
for line in io.lines() do
  local request, status = line:match('"(.-)" (%d+) ')
  if status and tonumber(status) >= 400 then
    io.stderr:write(status, " for ", request, "\n")
  end
end
