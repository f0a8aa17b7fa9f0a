print("Content-Type: text/plain\n")
print(string.trim, string.format("%d", 1), table.concat({1, 2}, ","), math.pi > 3, os.time ~= nil, utf8 ~= nil)
string.trim = function(s) return s end
string.format = nil
table.concat = function() return "patched" end
math.pi = 0
os = nil
utf8 = {}
_VERSION = "Lua 9"
tostring = nil
debug.getinfo = print
coroutine.extra = true
io.lines = nil
package.path = "nowhere"
package.loaded.string = nil
package.loaded.utf8 = "gone"
package.config = nil
_G.anything = _G
