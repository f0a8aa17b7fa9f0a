#!/usr/bin/env python3
# A Logger: lines of the web server's log come in. Those of requests that failed go to the error log.
import re
import sys

for line in sys.stdin:
    found = re.search(r'"(.*?)" (\d+) ', line)
    if found and int(found[2]) >= 400:
        print(found[2], "for", found[1], file=sys.stderr)
