-- only for: luajit
-- query: 1
-- query: 2
print("Content-Type: text/plain\n")
local query = os.getenv("QUERY_STRING")
local ffi = require("ffi")
ffi.cdef "typedef struct { double x, y; } point_with_methods;"
local count = 0
local point = ffi.metatype("point_with_methods", {
  __add = function(a, b) count = count + 1 return ffi.new("point_with_methods", a.x + b.x, a.y + b.y) end,
  __index = {area = function(a) return a.x * a.y, query, count end},
})
local sum = point(1, 2)
for i = 1, 500 do sum = sum + point(i, 1) end
print(sum.x, sum.y, sum:area())
print(pcall(ffi.metatype, "point_with_methods", {}))
print(pcall(ffi.metatype, "no_such_type", {}), pcall(ffi.metatype, "point_with_methods"))
