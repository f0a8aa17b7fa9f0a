#!/usr/bin/env fcgi-lua
-- An Authorizer: status 200 lets the client in, and the web server makes a variable of `Variable-GUEST`.
if os.getenv("QUERY_STRING") == "word=sesame" then
  io.write("Status: 200 OK\nVariable-GUEST: yes\n\n")
else
  io.write("Status: 403 Forbidden\nContent-Type: text/plain\n\nWhat is the word?\n")
end
