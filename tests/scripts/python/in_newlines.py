# body: a\r\nb
"""Lines end as they do."""
import sys

print("Content-Type: text/plain\n")
print(repr(sys.stdin.read()))
