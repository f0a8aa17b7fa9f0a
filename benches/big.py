# 1 MiB, as a program writes that makes its page in parts.
import sys

sys.stdout.write("Content-Type: application/octet-stream\n\n")
part = "0123456789abcdef" * 256
for _ in range(256):
    sys.stdout.write(part)
