# What a request changes of its environment, in Python or in the C library, is not there for the next one, whether that has
# the same variables or others.
# query: a=1
# query: a=1
# query: a=2
import os

NAMES = ("QUERY_STRING", "REQUEST_METHOD", "SERVER_PROTOCOL", "LEFT_BY_PUTENV", "LEFT_IN_ENVIRON")


def show():
    child = os.popen("echo " + " ".join('"${%s-none}"' % name for name in NAMES))
    print([os.environ.get(name) for name in NAMES], child.read(), end="")
    child.close()


print("Content-Type: text/plain\n")
show()
os.putenv("LEFT_BY_PUTENV", "1")
os.putenv("QUERY_STRING", "another")
os.unsetenv("REQUEST_METHOD")
show()
os.environ["LEFT_IN_ENVIRON"] = "1"
del os.environ["SERVER_PROTOCOL"]
show()
