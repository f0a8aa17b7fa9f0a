-- only for: lua51 luajit
-- query: 1
print("Content-Type: text/plain\n")
print(unpack({1, 2, 3}))
print(table.getn({1, 2}), table.maxn({[7] = 1}), math.mod and math.mod(7, 3), string.gfind ~= nil, loadstring("return 5")())
table.foreachi({"a", "b"}, print)
print(#package.loaders, gcinfo() > 0, _VERSION)
print(math.random(1, 1000000), math.random(1, 1000000))
math.randomseed(42)
print(math.random() ~= nil)
local function varargs(...) return select("#", ...), arg ~= nil end
print(varargs(nil, nil))
local proxy = newproxy(true)
getmetatable(proxy).__gc = function() print("proxy finalized") end
getmetatable(proxy).__len = function() return 5 end
print(#proxy, type(proxy))
table.insert(package.loaders, 1, function(name) if name == "found" then return function() return "by loader" end end end)
print(require("found"))
string.gsub = nil
print(debug.getfenv ~= nil, debug.sethook(function() end, "c"))
print(collectgarbage("setpause", 150), collectgarbage("setstepmul", 300))
