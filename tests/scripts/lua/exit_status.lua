-- query: 7
-- query: true
-- query: false
-- query: 259
-- query: none
print("Content-Type: text/plain\n")
local way = os.getenv("QUERY_STRING")
if way == "none" then os.exit() end
if way == "true" then os.exit(true) elseif way == "false" then os.exit(false) else os.exit(tonumber(way)) end
