-- A JSON API, as an application by the rules of WSAPI: POST {"a": 1, "b": 2} is answered with their sum.
-- cjson is Debian's package lua-cjson.
local json = require "cjson"

local function answer(status, value)
  return status, { ["Content-Type"] = "application/json" }, json.encode(value)
end

return function(env)
  if env.REQUEST_METHOD ~= "POST" then
    return answer("405 Method Not Allowed", { error = "use POST" })
  end
  local ok, numbers = pcall(json.decode, env.input:read(tonumber(env.CONTENT_LENGTH) or 0))
  if not ok or type(numbers) ~= "table" or type(numbers.a) ~= "number" or type(numbers.b) ~= "number" then
    return answer("400 Bad Request", { error = "send numbers a and b" })
  end
  return answer("200 OK", { sum = numbers.a + numbers.b })
end
