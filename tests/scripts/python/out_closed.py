# query: stdout
# query: stderr
# query: stdin
# query: none
"""A stream that one request closes is open for the next."""
import os
import sys

print("Content-Type: text/plain\n")
print("said", sys.stdin.closed, sys.stderr.closed, flush=True)
name = os.environ["QUERY_STRING"]
if name != "none":
    getattr(sys, name).close()
if name != "stdout":
    print("still")
