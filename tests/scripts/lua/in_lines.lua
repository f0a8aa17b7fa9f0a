-- body: a\nb\n\nc d\ne
print("Content-Type: text/plain\n")
for l in io.lines() do io.write("[", l, "]") end
print(io.read())
print(pcall(function() for a, b in io.stdin:lines(1, "L") do print(a, b) end end))
