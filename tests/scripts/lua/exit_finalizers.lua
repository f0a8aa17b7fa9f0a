-- query: normal
-- query: exit
-- query: close
-- query: error
print("Content-Type: text/plain\n")
local way = os.getenv("QUERY_STRING")
held = setmetatable({}, {__gc = function() print("held by a global, finalized, " .. tostring(helper and helper())) end})
function helper() return "helped" end
local loose = setmetatable({}, {__gc = function() print("loose finalized") end})
-- An error that ends a script is never nil in 5.5, so there a variable is closed with one.
local var <close> = setmetatable({}, {__close = function(_, e) print("closed", not (_VERSION == "Lua 5.5" and way == "close") and e) end})
if way == "exit" then os.exit(3) end
if way == "close" then os.exit(4, true) end
if way == "error" then error("ends here") end
