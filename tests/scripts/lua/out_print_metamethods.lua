-- only for: lua54 lua55
print("Content-Type: text/plain\n")
print("plain")
print(setmetatable({}, { __tostring = function() io.write("first ") return "then" end }))
getmetatable("").__tostring = function(text) return "<" .. #text .. ">" end
print("four")
getmetatable("").__tostring = nil
print("plain")
debug.setmetatable("", { __tostring = function() return "other" end })
print("text")
debug.setmetatable("", nil)
print("text")
