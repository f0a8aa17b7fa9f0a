print("Content-Type: text/plain\n")
print(package.path:find("sub/?.lua", 1, true))
package.path = "./sub/?.lua;" .. package.path
print(require("inner").name, select(2, require("inner")))
package.preload.made = function(...) return {args = {...}} end
print(require("made").args[1])
table.insert(package.searchers, 1, function(name) if name == "found" then return function() return "by searcher" end end end)
print(require("found"), #package.searchers)
print(package.searchpath("inner", package.path))
