-- body: first\nsecond\nthird\n
-- query: none
print("Content-Type: text/plain\n")
local out = assert(io.open("/dev/stdout", "w"))
out:write("by its name\n")
print(out:close())
for line in io.lines("/dev/stdin") do print("line", line) end
io.output("/dev/stdout"):write("as default output\n")
io.output():close()
io.output(io.stdout)
local err = io.open("/dev/stderr", "w")
err:write("an error by name\n")
err:close()
local left = io.open("/dev/fd/1", "w")
left:write("not closed\n")
print(io.type(left), io.open("/dev/no-such-device"))
