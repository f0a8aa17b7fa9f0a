-- only for: lua52
print("Content-Type: text/plain\n")
print(bit32.band(6, 3), bit32.extra, _ENV == _G, leaked, math.pow(2, 3), unpack({1, 2}), table.pack(1, 2).n)
bit32.extra, bit32.band = 1, nil
leaked = true
for i = 1, 2 do
  for j = 1, 2 do
    if j == 2 then goto continue end
    print(i, j)
    ::continue::
  end
end
setmetatable({}, {__gc = function() print("finalized") end})
local _ENV = {print = print}
leaked = 1
print(leaked)
