-- only for: luajit
-- query: loop
-- query: compiled
-- query: pcall_loop
-- query: callback
-- query: wrap_handler
-- query: print_handler
-- query: traceback_handler
-- query: coroutine_loop
-- query: gsub
-- query: sort
-- query: deep
-- query: ffi_callback
-- query: close
-- query: tail
print("Content-Type: text/plain\n")
local way = os.getenv("QUERY_STRING")
local function hot(n) local s = 0 for i = 1, n do s = s + i % 7 end return s end
print(hot(1000000))
local function stop(n) if n > 1000 then os.exit(42) end return n end
local ways = {
  loop = function() for i = 1, 1e9 do stop(i) end end,
  compiled = function() for i = 1, 2000 do pcall(stop, i) hot(1000) end while true do hot(1000) end end,
  pcall_loop = function() local i = 0 while true do i = i + 1 pcall(stop, i) end end,
  callback = function() local t = {} for i = 1, 2000 do t[i] = i end table.foreach(t, function(_, i) pcall(stop, i) end) end,
  wrap_handler = function()
    print(xpcall(function() coroutine.wrap(function() os.exit(43) end)() end, function(m) print("handler saw", m) return m end))
  end,
  print_handler = function() print(xpcall(function() coroutine.wrap(function() os.exit(44) end)() end, print)) end,
  traceback_handler = function() print(xpcall(os.exit, debug.traceback, 45)) end,
  coroutine_loop = function()
    for i = 1, 1e9 do
      local co = coroutine.create(function() for j = 1, 100 do coroutine.yield(j) end stop(i) end)
      while coroutine.resume(co) and coroutine.status(co) ~= "dead" do end
    end
  end,
  gsub = function() print(pcall(string.gsub, string.rep("x", 5000), ".", function() for i = 1, 2000 do stop(i) end end)) end,
  sort = function() local t = {} for i = 1, 3000 do t[i] = -i end print(pcall(table.sort, t, function(a, b) stop(-a) return a < b end)) end,
  deep = function() local function f(n) if n == 0 then os.exit(46) end local ok, m = pcall(f, n - 1) print("survived", n) return m end f(100) end,
  ffi_callback = function() local ffi = require("ffi") local m = ffi.metatype("struct { int x; }", {__gc = function() end}) local keep = m() pcall(os.exit, 47) end,
  close = function() pcall(os.exit, 48, true) print("never") end,
  tail = function() local function f(n) if n == 0 then return pcall(os.exit, 49) end return f(n - 1) end return f(10000) end,
}
ways[way]()
print("never")
