"""Functions of `atexit`."""
import atexit
import sys
from types import SimpleNamespace

from fcgi._notes import like


class Exits:
    """Functions that `atexit` is to call. Those of modules that stay are called when the process ends."""

    def __init__(self, loaded):
        self.modules = loaded
        self.functions = []
        self.originals = {name: getattr(atexit, name) for name in ("register", "unregister", "_clear", "_ncallbacks")}
        for name in ("register", "unregister", "_clear", "_run_exitfuncs", "_ncallbacks"):
            setattr(atexit, name, like(getattr(self, name.lstrip("_")), getattr(atexit, name)))

    def register(self, func, /, *arguments, **named):
        if not callable(func):
            raise TypeError("the first argument must be callable")
        loading = self.modules.current
        if loading is not None and not loading.is_sibling or is_finalizer(func):
            self.originals["register"](func, *arguments, **named)
        else:
            self.functions.append((func, arguments, named))
        return func

    def unregister(self, func, /):
        self.functions[:] = [f for f in self.functions if f[0] != func]
        self.originals["unregister"](func)

    def clear(self):
        self.functions.clear()

    def ncallbacks(self):
        return len(self.functions) + self.originals["_ncallbacks"]()

    def run_exitfuncs(self):
        """Calls the functions, the last one first; gives the last exception."""
        failed = None
        # What these functions register comes too late.
        for func, arguments, named in reversed(self.functions[:]):
            try:
                func(*arguments, **named)
            except BaseException as e:
                failed = e
                e.__traceback__ = e.__traceback__ and e.__traceback__.tb_next
                if not isinstance(e, SystemExit) or sys.version_info >= (3, 10):
                    unraisable(e, func)
        self.functions.clear()
        return failed


def is_finalizer(func):
    """Whether a function is what `weakref.finalize` registers once and for all."""
    return getattr(func, "__qualname__", "") == "finalize._exitfunc"


def unraisable(exception, func):
    """Tells of an exception that nobody can catch, as `python3` does."""
    what = ("Exception ignored in atexit callback", func)
    if sys.version_info >= (3, 13):
        # The function is part of the message there.
        what = ("%s %r" % what, None)
    if sys.version_info < (3, 10):
        print("Error in atexit._run_exitfuncs:", file=sys.stderr)
    elif sys.unraisablehook is not sys.__unraisablehook__:
        told = dict(exc_type=type(exception), exc_value=exception, exc_traceback=exception.__traceback__)
        sys.unraisablehook(SimpleNamespace(err_msg=what[0], object=what[1], **told))
        return
    else:
        print("%s:" % what[0] if what[1] is None else "%s: %r" % what, file=sys.stderr)
    sys.__excepthook__(type(exception), exception, exception.__traceback__)
