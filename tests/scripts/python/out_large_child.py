"""More than a pipe holds, from a child that nobody reads meanwhile."""
import os

print("Content-Type: text/plain\n", flush=True)
os.system("head -c 300000 /dev/zero | tr '\\0' x")
