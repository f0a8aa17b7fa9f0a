# body: one\ntwo\nthree
# body-repeat: 0123456789abcdef 20000
# query: none
"""The body: as text, as bytes, by descriptor, by children."""
import os
import subprocess
import sys

print("Content-Type: text/plain\n")
first = sys.stdin.readline()
print(repr(first[:20]), len(first))
rest = sys.stdin.buffer.read(10)
print(repr(rest))
sys.stdout.flush()
subprocess.run(["wc", "-c"])
print(len(os.read(0, 100)), repr(sys.stdin.read()[:3]))
