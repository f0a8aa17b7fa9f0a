#!/usr/bin/env python3
# The three roles of FastCGI, by requests as objects. What stands before the loop is done once, and stays.
import fcgi

count = 0
for request in fcgi.requests():
    count += 1
    answer = request.stdout
    if request.role == "AUTHORIZER":
        # Status 200 lets the client in; the web server makes a variable of `Variable-GUEST`.
        if request.params["QUERY_STRING"] == "word=sesame":
            answer.write(b"Status: 200 OK\r\nVariable-GUEST: yes\r\n\r\n")
        else:
            answer.write(b"Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nWhat is the word?\n")
        continue
    answer.write(b"Content-Type: text/plain\r\n\r\n")
    if request.role == "FILTER":
        # A file comes in behind the body, and goes out changed.
        answer.writelines(line.upper() for line in request.data)
    else:
        answer.write(b"Request number %d, with %d bytes.\n" % (count, len(request.stdin.read())))
