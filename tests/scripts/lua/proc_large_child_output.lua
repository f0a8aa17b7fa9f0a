print("Content-Type: text/plain\n")
io.stdout:flush()
os.execute("seq 1 60000")
local p = io.popen("seq 1 50000; seq 1 20000 >&2", "r")
local n = 0
for l in p:lines() do n = n + #l end
print(n, p:close())
local w = io.popen("cksum", "w")
for i = 1, 20000 do w:write("line ", i, "\n") end
print(w:close())
