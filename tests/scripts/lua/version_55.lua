-- only for: lua55
print("Content-Type: text/plain\n")
global print, table, x, collectgarbage
print(x)
x = 5
local t <const> = table.create(10)
t[1] = x
print(#t, x, collectgarbage("param", "pause"))
collectgarbage("param", "pause", 1000)
