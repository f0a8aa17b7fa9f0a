-- Calls an application for one request: WSAPI's environment in; status, headers and body out.
local io, getenv, params, setmetatable, type, tostring, tonumber, pairs, ipairs, error, concat, find = ...

local reasons = {
  [200] = "OK", [201] = "Created", [202] = "Accepted", [203] = "Non-Authoritative Information", [204] = "No Content",
  [205] = "Reset Content", [206] = "Partial Content", [300] = "Multiple Choices", [301] = "Moved Permanently",
  [302] = "Found", [303] = "See Other", [304] = "Not Modified", [307] = "Temporary Redirect",
  [308] = "Permanent Redirect", [400] = "Bad Request", [401] = "Unauthorized", [402] = "Payment Required",
  [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed", [406] = "Not Acceptable",
  [408] = "Request Timeout", [409] = "Conflict", [410] = "Gone", [411] = "Length Required",
  [412] = "Precondition Failed", [413] = "Content Too Large", [414] = "URI Too Long",
  [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable", [417] = "Expectation Failed",
  [422] = "Unprocessable Content", [428] = "Precondition Required", [429] = "Too Many Requests",
  [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout", [505] = "HTTP Version Not Supported",
}

-- Variables are looked up when they are asked for; those that the request lacks are "", which is WSAPI's rule.
local variables = {
  __index = function(env, name)
    local value = name == "headers" and params() or getenv(name) or ""
    env[name] = value
    return value
  end,
}

local function read(input, count)
  count = count or input.length
  if count > 0 then
    return io.stdin:read(count)
  end
end

local function environment(directory)
  local env = setmetatable({}, variables)
  env.input = { read = read, length = tonumber(env.CONTENT_LENGTH) or 0 }
  env.error = io.stderr
  env.APP_PATH = directory
  if env.PATH_INFO == "" then
    env.PATH_INFO = "/"
  end
  return env
end

local function status_line(status)
  local number = tonumber(status)
  if number then
    return ("%d %s"):format(number, reasons[number] or "")
  elseif type(status) == "string" and find(status, "^%d%d%d ") and not find(status, "[\r\n]") then
    return status
  elseif status == nil then
    return "200 OK"
  end
  error("the application's status is neither a number nor a text such as \"404 Not Found\"", 0)
end

-- The header lines, and whether the body's length is among them.
local function head(status, headers)
  local lines, measured = { "Status: " .. status_line(status) }, false
  local function add(name, value)
    local line = tostring(name) .. ": " .. tostring(value)
    if find(line, "[\r\n]") then
      error("the application's header " .. tostring(name):gsub("%c", "?") .. " has a line break in it", 0)
    end
    lines[#lines + 1] = line
  end
  if headers == nil then
    headers = { ["Content-Type"] = "text/html; charset=utf-8" }
  elseif type(headers) ~= "table" then
    error("the application's headers are not a table", 0)
  end
  for name, value in pairs(headers) do
    measured = measured or tostring(name):lower() == "content-length"
    if type(value) == "table" then
      for _, each in ipairs(value) do
        add(name, each)
      end
    else
      add(name, value)
    end
  end
  lines[#lines + 1] = "\r\n"
  return concat(lines, "\r\n"), measured
end

return function(application, directory)
  if type(application) == "table" then
    application = application.run
  end
  local status, headers, body = application(environment(directory))
  local out = io.stdout
  local lines, measured = head(status, headers)
  out:write(lines)
  if type(body) == "string" or type(body) == "number" then
    out:write(body)
  elseif body ~= nil then
    local chunk = body()
    while chunk do
      out:write(chunk)
      -- A body of unknown length may be a stream: each piece is sent before the next one is asked for.
      if not measured then
        out:flush()
      end
      chunk = body()
    end
  end
end
