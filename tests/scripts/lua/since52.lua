-- not for: lua51 luajit
print("Content-Type: text/plain\n")
print(leaked, _ENV == _G)
do local _ENV = {print = print} leaked = 1 print(leaked) end
print(leaked, table.pack(1, nil, 3).n, select("#", table.unpack({1, 2, 3})))
for i = 1, 3 do if i == 2 then goto continue end io.write(i, " ") ::continue:: end
print(load("return ...", "chunk", "t", {})(7))
print(xpcall(function(...) return ... end, print, "passed on"))
print(rawlen({1, 2}), math.type and math.type(1), bit32 and bit32.band(6, 3), utf8 and utf8.char(228))
print(string.format("%q", "a\nb"), ("x"):rep(3, ","))
local t = setmetatable({}, {__gc = function() print("finalized") end})
if bit32 then bit32.leaked = true bit32.band = nil end
print(#package.searchers, select("#", require("string")))
