# Reads what a framework reads before it begins.
import os

names = [
    "REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "SCRIPT_NAME", "SCRIPT_FILENAME", "CONTENT_LENGTH",
    "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "GATEWAY_INTERFACE",
]  # fmt: skip
names += ["HTTP_X_%d" % number for number in range(11, 30)]
print("Content-Type: text/plain\n")
for name in names:
    print(name, os.environ.get(name, ""), sep="=")
