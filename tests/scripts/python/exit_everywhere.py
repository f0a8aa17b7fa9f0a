# query: thread
# query: finally
# query: except
# query: atexit
# query: generator
# query: os
# query: hook
import atexit
import os
import sys
import threading

print("Content-Type: text/plain\n", flush=True)
what = os.environ["QUERY_STRING"]
if what == "thread":
    thread = threading.Thread(target=sys.exit, args=(4,))
    thread.start()
    thread.join()
elif what == "finally":
    try:
        sys.exit(5)
    finally:
        print("finally")
elif what == "except":
    try:
        sys.exit(6)
    except SystemExit as e:
        print("caught", e.code)
elif what == "atexit":
    atexit.register(print, "first registered")
    atexit.register(lambda: sys.stdout.write("last registered\n"))
    sys.exit(8)
elif what == "generator":

    def numbers():
        try:
            yield 1
        finally:
            print("generator closed")

    running = numbers()
    next(running)
elif what == "os":
    print("lost in its buffer")
    try:
        os._exit(9)
    except BaseException:
        print("never")
    finally:
        print("never")
elif what == "hook":
    sys.excepthook = lambda kind, value, trace: print("hook:", kind.__name__, value)
    raise ValueError("hooked")
print("end")
