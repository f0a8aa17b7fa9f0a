print("Content-Type: text/plain\n")
for i = 1, 5 do
  io.write("parent ", i, "\n")
  io.flush()
  os.execute("echo child " .. i)
end
io.write("unflushed is overtaken\n")
os.execute("echo first")
io.popen("echo from popen; echo popen error >&2", "w"):close()
local p = io.popen("echo read by the parent; echo more")
for line in p:lines() do print("got", line) end
print(p:close())
