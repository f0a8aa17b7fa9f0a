# body-repeat: unread 100000
# query: next
# body: second
"""What one request does not read, the next does not see."""
import os
import sys

print("Content-Type: text/plain\n")
if os.environ["QUERY_STRING"] == "next":
    print(repr(sys.stdin.read()))
else:
    print(repr(sys.stdin.read(3)))
