-- query: sort
-- query: gsub
-- query: meta
-- query: xpcall
-- query: handler
-- query: deep
-- query: wrap
-- query: wrapped_pcall
-- query: hook
-- query: load
-- query: loop
-- query: iterator
-- query: close
-- query: tostring
print("Content-Type: text/plain\n")
local way = os.getenv("QUERY_STRING")
local ways = {
  sort = function() table.sort({3, 2, 1}, function() os.exit(11) end) end,
  gsub = function() pcall(string.gsub, "abc", ".", function() os.exit(12) end) end,
  meta = function() local t = setmetatable({}, {__index = function() os.exit(13) end}); pcall(function() return t.x end) end,
  xpcall = function() xpcall(function() os.exit(14) end, function(m) print("handler saw", m) end) end,
  handler = function() xpcall(error, function() os.exit(15) end) end,
  deep = function() local function f(n) if n == 0 then os.exit(16) end pcall(f, n - 1) print("survived", n) end f(20) end,
  wrap = function() local w = coroutine.wrap(function() pcall(os.exit, 17) print("never") end); pcall(w) print("never") end,
  wrapped_pcall = function()
    local co = coroutine.create(function()
      local inner = coroutine.create(function() os.exit(18) end)
      print("never", coroutine.resume(inner))
    end)
    print("never", coroutine.resume(co))
  end,
  hook = function() debug.sethook(function() os.exit(19) end, "l"); local x = 1; x = x + 1 print("never", x) end,
  load = function() pcall(load, function() os.exit(20) end) end,
  loop = function() while true do pcall(os.exit, 21) end end,
  iterator = function() for _ in function() os.exit(22) end do end end,
  -- Before Lua 5.4, a text that cannot be loaded.
  close = function()
    local text = "local c <close> = setmetatable({}, {__close = function() print('closed though not asked') end}) os.exit(23)"
    local f = (loadstring or load)(text)
    if f then f() else os.exit(23) end
  end,
  tostring = function() print(setmetatable({}, {__tostring = function() os.exit(24) end})) end,
}
ways[way]()
print("never")
