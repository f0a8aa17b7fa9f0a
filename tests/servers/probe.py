# Does what a test asks for. The same in all languages.
import os
import re
import sys
import time

env = os.environ.get
what = re.match(r"do=(\w+)", env("QUERY_STRING", "")).group(1)


def say(head, *body):
    print(head, end="\n\n")
    print(*body, sep="", end="")


if what == "info":
    say("Content-Type: text/plain\nX-Method: " + env("REQUEST_METHOD"))
    sys.stdout.flush()
    for name in ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "SERVER_PROTOCOL",
                 "HTTP_X_TEST", "HTTP_AUTHORIZATION", "SCRIPT_FILENAME"):
        sys.stdout.buffer.write(os.fsencode(f"{name}={env(name, '')}\n"))
elif what == "echo":
    text = sys.stdin.read()
    say("Content-Type: text/plain", env("REQUEST_METHOD"), " ", env("CONTENT_TYPE"), " ", env("CONTENT_LENGTH", ""), " ", text)
elif what == "length":
    length = 0
    while block := sys.stdin.buffer.read(65536):
        length += len(block)
    say("Content-Type: text/plain", length)
elif what == "cookies":
    say("Content-Type: text/plain\nSet-Cookie: a=1\nSet-Cookie: b=2", "cookies")
elif what == "local":
    say("Location: " + env("SCRIPT_NAME") + "/there?do=info")
elif what == "client":
    say("Location: http://other.example/x")
elif what == "nothing":
    say("Status: 204 No Content")
elif what == "talkative":
    say("Status: 204 No Content", "this is nobody's business")
elif what == "same":
    say("Status: 304 Not Modified\nETag: \"x\"")
elif what == "status":
    say("Status: 404 Gone Fishing\nContent-Type: text/plain", "fishing")
elif what == "errors":
    print("to the error log", file=sys.stderr)
    say("Content-Type: text/plain", "fine")
    print("to the error log, once more", file=sys.stderr)
elif what == "pieces":
    for piece in "Content-Type: text/plain\n\npieces":
        print(piece, end="", flush=True)
elif what == "slow":
    time.sleep(0.5)
    say("Content-Type: text/plain", "slept")
elif what == "down":
    say("Content-Type: application/octet-stream")
    for _ in range(1600):
        print("0123456789abcdef" * 4096, end="")
elif what == "endless":
    say("Content-Type: application/octet-stream")
    for _ in range(8000):
        print("0123456789abcdef" * 4096, end="")
