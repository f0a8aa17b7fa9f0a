# query: leaves
# query: traces
"""A thread that waits for ever, and a script that is traced."""
import os
import queue
import sys
import threading

print("Content-Type: text/plain\n", flush=True)
if os.environ["QUERY_STRING"] == "leaves":
    threading.Thread(target=queue.Queue().get, daemon=True).start()
else:
    seen = []
    sys.settrace(lambda frame, event, argument: seen.append(frame.f_code.co_name))

    def traced():
        return 1

    traced()
    sys.settrace(None)
    print(seen)
