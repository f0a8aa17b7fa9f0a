#!/usr/bin/env python3
# An answer that comes piece by piece. The second header line asks nginx not to collect it.
import time

print("Content-Type: text/plain\nX-Accel-Buffering: no\n")
for number in range(1, 6):
    print("line", number, flush=True)
    time.sleep(0.1)
