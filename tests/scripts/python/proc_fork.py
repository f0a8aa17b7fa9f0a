# query: falls
# query: exits
# query: execs
# query: left
"""Children that the script forks are children, not servers."""
import os
import sys
import time

print("Content-Type: text/plain\n", flush=True)
what = os.environ["QUERY_STRING"]
child = os.fork()
if child == 0:
    print("in the child")
    if what == "exits":
        sys.exit(3)
    if what == "execs":
        sys.stdout.flush()
        os.execvp("echo", ["echo", "from echo"])
    if what == "left":
        time.sleep(0.4)
        print("late")
        sys.exit()
else:
    if what != "left":
        print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    else:
        print("not waited for", flush=True)
