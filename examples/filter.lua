#!/usr/bin/env fcgi-lua
-- A Filter: a file comes in behind the body, and goes out changed.
local fcgi = require "fcgi"
while fcgi.accept() do
  io.write("Content-Type: text/plain\n\n")
  for line in fcgi.data():lines("L") do
    io.write(line:upper())
  end
end
