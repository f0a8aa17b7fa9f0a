"""The compiler warns each time."""
print("Content-Type: text/plain\n", flush=True)
number = 1
print(number is 1)
