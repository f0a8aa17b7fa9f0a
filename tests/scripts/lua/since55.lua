-- only for: lua55
print("Content-Type: text/plain\n")
print(load("global x = 1; return x")())
print(load("global none; return undefined_name"))
print(#table.create(10), table.leaked, _VERSION, x)
table.leaked = table.create
print(collectgarbage("param", "pause", 120), collectgarbage("incremental"), collectgarbage("param", "stepmul", 300))
print(select("#", utf8.offset("aä", 2)))
for i = 1, 2 do io.write(i, "\n") end
global named <const> = "a global constant"
print(named)
