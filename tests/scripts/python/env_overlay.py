# query: a=1
# query: b=2&c=%20
"""The environment is the request's, for Python, for children, and for the C library."""
import ctypes
import os
import subprocess
import sys

print("Content-Type: text/plain\n")
print(os.environ["QUERY_STRING"], os.getenv("QUERY_STRING"), os.environb[b"QUERY_STRING"], os.environb[b"HTTP_X_BYTES"])
print(os.environ.get("LEFT"), "LEFT" in os.environ)
os.environ["LEFT"] = "left " + os.environ["QUERY_STRING"]
del os.environ["SERVER_NAME"]
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
print(libc.getenv(b"LEFT"), libc.getenv(b"QUERY_STRING"), libc.getenv(b"SERVER_NAME"))
sys.stdout.flush()
subprocess.run(["sh", "-c", "echo \"$LEFT,$QUERY_STRING,${SERVER_NAME-none}\""])
