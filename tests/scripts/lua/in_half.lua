-- body-repeat: some text 20000
print("Content-Type: text/plain\n")
print(#io.read(10000))
