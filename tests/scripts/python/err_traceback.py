# query: plain
# query: chained
# query: syntax
# query: recursion
# query: group
# query: interrupt
import os
import sys

print("Content-Type: text/plain\n")
what = os.environ["QUERY_STRING"]


def fail(n):
    raise ValueError("bad \udc80 %d" % n)


if what == "plain":
    fail(3)
elif what == "chained":
    try:
        fail(1)
    except ValueError as e:
        raise KeyError("k") from e
elif what == "syntax":
    eval("1 +")
elif what == "recursion":

    def deeper(n):
        return deeper(n + 1)

    try:
        deeper(0)
    except RecursionError as e:
        print(e)
elif what == "group":
    try:
        fail(1)
    except ValueError:
        fail(2)
elif what == "interrupt":
    print(sys.getrecursionlimit())
    sys.exit("said on standard error")
