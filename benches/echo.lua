io.write("Content-Type: application/octet-stream\n\n")
for block in io.lines(nil, 8192) do io.write(block) end
