-- only for: luajit
print("Content-Type: text/plain\n")
print(ffi, package.preload.ffi ~= nil, package.loaded.bit == bit, package.loaded.jit == jit)
print(jit.status())
print(math.random(1000000), math.random(1000000))
local ffi = require("ffi")
print(ffi.leaked, package.loaded.ffi == ffi, require("ffi") == ffi)
ffi.cdef "struct point_of_this_script { int x, y; }; int abs(int); typedef struct { double d; } own_t;"
print(pcall(ffi.cdef, "struct point_of_this_script { int x, y; };"))
local p = ffi.new("struct point_of_this_script", 3, -4)
print(p.x, ffi.C.abs(p.y), ffi.sizeof("own_t"), tonumber(ffi.new("int64_t", 7)))
print(bit.bor(1, 2, 4), bit.tohex(255), bit.leaked, jit.leaked, jit.opt.leaked)
print(1LL + 2, 0xffULL, 3i)
local buffer = require("table.new")(4, 0)
print(#buffer, table.new ~= nil)
goto over
print("skipped")
::over::
ffi.leaked, bit.leaked, jit.leaked, jit.opt.leaked = 1, 2, 3, 4
local new = ffi.new
bit.bor, jit.status, ffi.new = nil, nil, nil
math.randomseed(7)
print(math.random(1000000))
jit.off()
jit.opt.start(0, "hotloop=1000")
jit.flush()
jit.attach(function() end, "trace")
print(ffi.gc(new("char[4]"), function() end) ~= nil)
