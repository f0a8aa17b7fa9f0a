-- query: one
-- query: two
local m = require("_reads")
print(m.query, m.body)
