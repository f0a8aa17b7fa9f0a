#!/usr/bin/env lua5.4
-- An answer that comes piece by piece. The second header line asks nginx not to collect it.
io.write("Content-Type: text/plain\nX-Accel-Buffering: no\n\n")
for number = 1, 5 do
  io.write("line ", number, "\n")
  io.flush()
  os.execute("sleep 0.1")
end
