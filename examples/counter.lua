#!/usr/bin/env fcgi-lua
-- The 1996 FastCGI paper's program as it was meant: an accept loop. What stands before the loop is done once.
local fcgi = require "fcgi"
local count = 0
while fcgi.accept() do
  count = count + 1
  print("Content-Type: text/html\n")
  print("Hello world!<br>Request number " .. count .. ".")
end
