#!/usr/bin/env python3
# An Authorizer: status 200 lets the client in, and the web server makes a variable of `Variable-GUEST`.
import os

if os.environ.get("QUERY_STRING") == "word=sesame":
    print("Status: 200 OK\nVariable-GUEST: yes\n")
else:
    print("Status: 403 Forbidden\nContent-Type: text/plain\n\nWhat is the word?")
