-- type: multipart/form-data; boundary=XX
-- body: --XX\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--XX\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\n\r\nbytes\r\n--XX--\r\n
local boundary = "--" .. os.getenv("CONTENT_TYPE"):match("boundary=(.*)")
local body = io.read(tonumber(os.getenv("CONTENT_LENGTH")))
print("Content-Type: text/plain\n")
for head, value in body:gmatch(boundary:gsub("%-", "%%-") .. "\r\n(.-)\r\n\r\n(.-)\r\n%f[-]") do
  print(head:match('name="(.-)"'), head:match('filename="(.-)"'), value)
end
