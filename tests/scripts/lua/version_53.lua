-- only for: lua53 lua54 lua55
print("Content-Type: text/plain\n")
print(7 // 2, 7 / 2, 3 | 4, math.type(1), math.type(1.0), 1e15, 2^53, math.maxinteger, -7 // 2, 7 % -3)
print(utf8.char(228, 8364), utf8.len("äöü"), utf8.extra, bit32 and bit32.extra, #string.pack("i4", 7))
utf8.extra = 1
if bit32 then bit32.extra = 1 end
print(table.move({1, 2, 3}, 1, 3, 2)[3], string.format("%q", 1 / 3), tostring(3.0))
utf8.char = nil
