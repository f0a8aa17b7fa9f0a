-- query: 1
-- query: 2
print("Content-Type: text/plain\n")
local print, getenv = print, os.getenv
print(leaked, _ENV == _G)
_ENV = {leaked = "in another environment"}
print(leaked, getenv("QUERY_STRING"))
