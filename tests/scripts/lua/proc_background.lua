print("Content-Type: text/plain\n")
io.stdout:flush()
os.execute("(sleep 0.2; echo late) &")
print("script ends")
