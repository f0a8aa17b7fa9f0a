#!/usr/bin/env python3
# A counter for each session, in memory: what stands before the loop stays. With several workers, each has counters of its own.
import os
import re
import secrets

import fcgi

visits = {}
while fcgi.accept():
    cookie = re.search(r"session=([0-9a-f]+)", os.environ.get("HTTP_COOKIE", ""))
    session = cookie and cookie[1]
    print("Content-Type: text/plain")
    if session not in visits:
        session = secrets.token_hex(16)
        print(f"Set-Cookie: session={session}; HttpOnly; SameSite=Lax")
    visits[session] = visits.get(session, 0) + 1
    print(f"\nVisit {visits[session]}")
