-- query: changed
-- query: plain
-- Until 5.3, print calls the global tostring, for texts as well.
if os.getenv("QUERY_STRING") == "changed" then
  local plain = tostring
  tostring = function(value) return "<" .. plain(value) .. ">" end
end
print("Content-Type: text/plain")
print("")
print("text")
print("text", 1, nil, true)
print()
print(2)
