-- only for: lua51 lua52 lua53
-- Before Lua 5.4, random numbers are the same in each process.
print("Content-Type: text/plain\n")
print(math.random(1000), math.random(1000), math.random(1000))
