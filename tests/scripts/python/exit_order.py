"""Functions of `atexit`, and what comes too late."""
import atexit
import sys
import weakref

print("Content-Type: text/plain\n")


class Kept:
    pass


kept = Kept()
weakref.finalize(kept, print, "finalized").atexit = False
atexit.register(print, "the first, and the last")


@atexit.register
def late():
    atexit.register(print, "too late")


class Fails:
    def __repr__(self):
        return "what fails"

    def __call__(self):
        raise ValueError("in a function of atexit")


atexit.register(Fails())

atexit.register(sys.exit, 3)
