-- only for: lua51 luajit
-- query: 1
-- query: 2
print("Content-Type: text/plain\n")
local print, getenv, setfenv, getfenv, setmetatable, _G = print, os.getenv, setfenv, getfenv, setmetatable, _G
print(leaked, getfenv(1) == _G, getfenv(0) == _G, getfenv(print) == _G)
print(pcall(setfenv, print, {}))
local function own() return marker, leaked end
setfenv(own, {marker = "in its own environment"})
print(own())
setfenv(1, {leaked = "in the chunk's environment"})
print(leaked, getenv("QUERY_STRING"))
setfenv(0, setmetatable({leaked = "in the thread's environment"}, {__index = _G}))
print(_G.loadstring("return leaked")())
_G.assert(not pcall)
