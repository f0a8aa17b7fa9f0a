-- query: no
-- query: line
-- query: full
-- query: default
local way = os.getenv("QUERY_STRING")
if way ~= "default" then print(io.stdout:setvbuf(way)) end
io.write("Content-Type: text/plain\n\n")
io.write("one\n")
os.execute("echo two")
io.write("three")
io.stdout:flush()
os.execute("echo four")
io.write(string.rep("x", 5000))
os.execute("echo; echo five")
io.stderr:write("an error\n")
