print("Content-Type: text/plain\n")
print(debug.gethook())
debug.sethook(function() end, "crl", 1)
local co = coroutine.create(function() coroutine.yield(1) end)
coroutine.resume(co)
kept = co
print(collectgarbage("isrunning"), collectgarbage("incremental", 100, 200))
collectgarbage("stop")
