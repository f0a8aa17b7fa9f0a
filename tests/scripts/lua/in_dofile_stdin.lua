-- body: print("from the body") return 1, 2
print("Content-Type: text/plain")
print()
print(dofile())
