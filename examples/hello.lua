#!/usr/bin/env lua5.4
-- The first program of the 1996 FastCGI paper, as an ordinary CGI script. The count lives in package.loaded, which stays
-- while the process does: 1 each time under CGI, counting up under fcgi-lua.
package.loaded.hello = (package.loaded.hello or 0) + 1
print("Content-Type: text/html\n")
print("Hello world!<br>Request number " .. package.loaded.hello .. ".")
