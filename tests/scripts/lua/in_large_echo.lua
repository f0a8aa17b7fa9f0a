-- body-repeat: 0123456789abcdefghijklmnopqrstuvwxyz+\n 40000
io.write("Content-Type: application/octet-stream\n\n")
while true do
  local block = io.read(8192)
  if not block then break end
  io.write(block)
end
