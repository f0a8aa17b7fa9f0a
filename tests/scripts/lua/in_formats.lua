-- body: 12 0x1F -3.5e2 word\nsecond line\n\nlast without newline
-- body: 
print("Content-Type: text/plain\n")
print(io.read("n", "n", "n"))
print(io.read("l"))
print(io.read("L"))
print(io.read(0), io.read(1), io.read("l"))
print(io.read("a"))
print(io.read("a"), io.read("l"), io.read(0), io.read("n"))
print(pcall(io.read, "x"))
