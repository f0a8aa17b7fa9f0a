-- query: nil
-- query: table
-- query: number
-- query: level0
-- query: level2
-- query: zero
-- query: assert
-- query: assertmsg
-- query: boolean
-- query: call
-- query: arith
-- query: wrap
-- query: name
print("Content-Type: text/plain\n")
local way = os.getenv("QUERY_STRING")
local function thrower() error("from level two", 2) end
if way == "nil" then error(nil) end
if way == "table" then error({}) end
if way == "number" then error(42) end
if way == "level0" then error("no position", 0) end
if way == "level2" then thrower() end
if way == "zero" then error("before\0after") end
if way == "assert" then assert(false) end
if way == "assertmsg" then assert(nil, "said so") end
if way == "boolean" then error(true) end
if way == "call" then local t = {} t.missing() end
if way == "arith" then return {} + 1 end
if way == "wrap" then coroutine.wrap(function() error("in a coroutine") end)() end
if way == "name" then error(setmetatable({}, {__name = "My.Type"})) end
