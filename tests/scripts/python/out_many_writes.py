import sys

print("Content-Type: text/plain\n")
for n in range(5000):
    sys.stdout.write("line %d\n" % n)
    if n % 1000 == 0:
        print("err", n, file=sys.stderr)
