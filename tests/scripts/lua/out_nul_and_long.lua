io.write("Content-Type: application/octet-stream\r\n\r\n")
for i = 1, 300 do io.write(("\0%d\255"):format(i), string.rep("y", i * 7)) end
