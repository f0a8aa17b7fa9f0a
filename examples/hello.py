#!/usr/bin/env python3
# An ordinary CGI script: the same answer as under CGI, from a process that stays up.
import html
import os

name = html.escape(os.environ.get("QUERY_STRING") or "world")
print("Content-Type: text/html; charset=utf-8\n")
print(f"Hello {name}!")
