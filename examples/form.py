#!/usr/bin/env python3
# A form with a file, as an ordinary CGI script: GET shows it, POST says what was sent.
import os
import sys
from email.parser import BytesParser
from email.policy import HTTP

if os.environ.get("REQUEST_METHOD") != "POST":
    print("Content-Type: text/html; charset=utf-8\n")
    print('<!doctype html><title>Upload</title><form method="post" enctype="multipart/form-data">')
    print('<input name="name"> <input name="file" type="file"> <button>Send</button></form>')
    sys.exit()

# A form is a multipart message (RFC 7578), whose head the web server has read.
head = "Content-Type: " + os.environ.get("CONTENT_TYPE", "") + "\r\n\r\n"
message = BytesParser(policy=HTTP).parsebytes(head.encode() + sys.stdin.buffer.read())
form = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
print("Content-Type: text/plain; charset=utf-8\n")
print("name:", form["name"].get_payload(decode=True).decode() if "name" in form else "?")
if "file" in form:
    print(f"file: {form['file'].get_filename() or '?'}, {len(form['file'].get_payload(decode=True))} bytes")
