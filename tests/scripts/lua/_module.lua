module(..., package.seeall)
local n = 0
function greet(who) return "hello " .. who end
function count() n = 0 return n end
