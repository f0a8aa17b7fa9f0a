-- only for: lua51 luajit
-- What only Lua 5.1 has; each is fresh for each request.
print("Content-Type: text/plain\n")
print(getfenv(0) == _G, getfenv(1) == _G, leaked, rawget(_G, "made_here"))
print(table.getn and table.getn({1, 2}), unpack({1, 2, 3}))
print(type(loadstring), loadstring("return ...")(5), #package.loaders, math.mod and math.mod(5, 3), type(string.gfind))
local proxy = newproxy(true)
getmetatable(proxy).__gc = function() io.write("a proxy ends\n") end
getmetatable(proxy).__len = function() return 42 end
print(#proxy)
module("made_here", package.seeall)
function inside() return _NAME, _PACKAGE, type(print) end
print(inside())
package.loaders[#package.loaders + 1] = function() return "nothing" end
string.gsub, table.concat = nil, print
setfenv(1, setmetatable({leaked = 1}, {__index = _G}))
leaked = 2
other = 3
print(leaked, _G.leaked, getfenv(1).other)
setfenv(0, {print = print, strange = true})
setfenv(_G.tostring and inside or inside, {})
math.randomseed(7)
print(math.random(100) ~= nil)
