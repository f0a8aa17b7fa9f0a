print("Content-Type: text/plain\n")
print(getmetatable(nil), debug.getmetatable(1), debug.getmetatable(print), debug.getmetatable(true), debug.getmetatable(coroutine.create(print)))
print(getmetatable("").__index == string, getmetatable("").__call, getmetatable(_G))
print(getmetatable(io.stdout).__index.extra, io.stdout.write ~= nil)
debug.setmetatable(nil, {__index = function() return "nil indexed" end})
debug.setmetatable(1, {__call = function(n) return n end})
debug.setmetatable(print, {__concat = function() return "f" end})
debug.setmetatable(true, {__len = function() return 9 end})
debug.setmetatable("", {__index = {}})
setmetatable(_G, {__index = function(_, k) return "global " .. k end})
getmetatable(io.stdout).__index.extra = true
getmetatable(io.stdout).__index.write = nil
getmetatable(io.stdout).__name = "renamed"
debug.setmetatable(io.stderr, nil)
