import sys

sys.stdout.buffer.write(b"Content-Type: application/octet-stream\n\n")
while block := sys.stdin.buffer.read(8192):
    sys.stdout.buffer.write(block)
