-- query: 1
-- query: 2
print("Content-Type: text/plain\n")
count = (count or 0) + 1
local up = 0
function bump() up = up + 1 return up end
print(count, bump(), bump())
for k, v in pairs(_G) do if k == "leak" then print("leaked", v) end end
leak = os.getenv("QUERY_STRING")
rawset(_G, 1, "number key")
_G[true] = "boolean key"
print(rawget(_G, 2), rawget(_G, false))
