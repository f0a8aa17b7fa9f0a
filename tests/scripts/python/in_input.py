# body: name\nvalue\n
print("Content-Type: text/plain\n")
try:
    while True:
        print(">", input("ask "))
except EOFError as e:
    print("end", e)
