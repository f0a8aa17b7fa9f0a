import os

QUERY = os.environ["QUERY_STRING"]
print("Content-Type: text/plain\n")
