#!/usr/bin/env python3
# A Filter: a file comes in behind the body, and goes out changed.
import fcgi

for request in fcgi.requests():
    request.stdout.write(b"Content-Type: text/plain\n\n")
    request.stdout.writelines(line.upper() for line in request.data)
