-- body: first\nsecond\nthird\n
-- body-repeat: 0123456789abcde\n 30000
print("Content-Type: text/plain\n")
io.stdout:flush()
os.execute("cksum")
print(io.read("a") == "")
