-- only for: luajit
-- What LuaJIT adds: its options and libraries are fresh for each request.
print("Content-Type: text/plain\n")
local ffi, bit = require "ffi", require "bit"
ffi.cdef [[ int abs(int); ]]
print(ffi.C.abs(-5), bit.band(6, 3), bit.extra, jit.status())
local sum = 0
for i = 1, 1e5 do sum = sum + bit.bxor(i, 3) end
print(sum, jit.extra)
bit.extra, jit.extra = 1, 1
print(math.random(1000), math.random(1000), math.random(1000))
math.randomseed(3)
local cell = ffi.gc(ffi.new("int[1]", 7), function() io.write("a cell ends\n") end)
print(cell[0])
cell = nil
local made = pcall(ffi.metatype, "struct { int x; }", {})
print(made)
jit.off()
jit.opt.start("hotloop=2")
io.stdout:flush()
os.execute("echo from a child")
local co = coroutine.wrap(function() pcall(coroutine.yield, 1) error("never") end)
print(co(), pcall(co))
while true do
  pcall(function() os.exit(3) end)
end
