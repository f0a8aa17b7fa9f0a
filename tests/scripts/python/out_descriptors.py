"""What goes to the descriptors themselves is part of the answer, in order."""
import ctypes
import os
import subprocess
import sys

print("Content-Type: text/plain\n", flush=True)
os.write(1, b"written\n")
print("printed", flush=True)
os.system("echo system; echo system says >&2")
print("buffered, so it comes after the child")
subprocess.run(["echo", "run"])
subprocess.Popen(["sh", "-c", "sleep 0.8; echo late child"])
ctypes.CDLL(None).puts(b"C's own buffer is flushed last")
print(subprocess.check_output(["sh", "-c", "echo taken; echo not taken >&2"]))
with open("/dev/stdout", "w") as file:
    file.write("by name\n")
print("error", file=sys.stderr)
os.write(2, b"error written\n")
