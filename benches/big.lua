-- 1 MiB, as a program writes that makes its page in parts.
io.write("Content-Type: application/octet-stream\n\n")
local part = string.rep("0123456789abcdef", 256)
for _ = 1, 256 do io.write(part) end
