#!/usr/bin/env fcgi-lua
-- A counter for each session, in memory: what stands before the loop stays. With several workers, each has counters of its own.
local fcgi = require "fcgi"
local visits = {}

while fcgi.accept() do
  local id = (os.getenv("HTTP_COOKIE") or ""):match("session=(%x+)")
  io.write("Content-Type: text/plain\n")
  if not (id and visits[id]) then
    local random = assert(io.open("/dev/urandom", "rb"))
    id = random:read(16):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
    random:close()
    io.write("Set-Cookie: session=", id, "; HttpOnly; SameSite=Lax\n")
  end
  visits[id] = (visits[id] or 0) + 1
  io.write("\nVisit ", visits[id], "\n")
end
