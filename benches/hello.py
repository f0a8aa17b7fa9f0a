print("Content-Type: text/plain\n")
print("Hello world!")
