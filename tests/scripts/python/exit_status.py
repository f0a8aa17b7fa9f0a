# query: 0
# query: 7
# query: 300
# query: -1
# query: None
# query: "words"
# query: 3.5
# query: 1 << 80
import os
import sys

print("Content-Type: text/plain\n")
print("said")
sys.exit(eval(os.environ["QUERY_STRING"]))
