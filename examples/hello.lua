#!/usr/bin/env lua5.4
-- An ordinary CGI script: the same answer as under CGI, from a process that stays up.
local escapes = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local name = os.getenv("QUERY_STRING") or ""
if name == "" then name = "world" end
print("Content-Type: text/html; charset=utf-8\n")
print("Hello " .. name:gsub('[&<>"]', escapes) .. "!")
