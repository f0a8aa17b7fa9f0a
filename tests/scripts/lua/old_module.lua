-- only for: lua51 lua52 luajit
-- query: 1
-- query: 2
print("Content-Type: text/plain\n")
local query = os.getenv("QUERY_STRING")
print(_seen, package.loaded._seen, part, package.loaded["part.of"])
local m = require("_module")
print(m.greet("you"), _module == m, _module.count(), m._NAME, m._M == m)
print(pcall(function() return m.undefined end))
module("_seen", package.seeall)
print(_NAME, _PACKAGE, leaked)
leaked = query
function shown() return "shown " .. leaked end
print(shown(), _G._seen.shown())
module("part.of", package.seeall)
print(_NAME, _PACKAGE, _G.part.of == _M)
