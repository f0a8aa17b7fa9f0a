OldModule = {name = "old style"}
function string.shout(s) return s:upper() .. "!" end
strict = true
setmetatable(_G, {__index = function(_, k) if k == "leaked" then return nil end error("undefined: " .. tostring(k), 2) end})
