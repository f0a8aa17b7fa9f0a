-- only for: lua53 lua54 lua55
print("Content-Type: text/plain\n")
print(7 // 2, 7 / 2, 1 << 4, 5 & 3, ~0, 2^53 | 0, math.tointeger(3.0), 10 // 0.0)
print(string.pack("<i4", 100):byte(1, -1))
print(utf8.len("äöü"), utf8.codepoint("€"), #utf8.char(8364), math.maxinteger, math.ult(1, -1))
print(1e15, 2^63, 100 // 1e300, 3 | 0, "10" + 5, math.type(2^31))
print(pcall(function() return 1.5 | 0 end))
print(table.move({1, 2, 3}, 2, 3, 1)[1], string.format("%d", 3.0))
print(math.pow ~= nil, bit32 ~= nil, utf8.leaked)
utf8.leaked, utf8.char = true, nil
