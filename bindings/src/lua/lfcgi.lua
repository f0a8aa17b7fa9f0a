-- The module of wsapi-fcgi's launchers, on this interpreter's own requests instead of libfcgi's.
local fcgi = require "fcgi"
local io, os, pairs = io, os, pairs

return {
  stdin = io.stdin, stdout = io.stdout, stderr = io.stderr,
  getenv = os.getenv,
  accept = function() return fcgi.accept() and 0 or -1 end,
  finish = function() fcgi.finish() end,
  setexitstatus = fcgi.set_exit_status,
  iscgi = function() return false end,
  environ = function()
    local list = {}
    for name, value in pairs(fcgi.params()) do
      list[#list + 1] = name .. "=" .. value
    end
    return list
  end,
}
