"""Runs ordinary scripts: each request in a `__main__` of its own, with streams, arguments and environment of its own."""
import os
import sys
from contextvars import Context
from importlib.machinery import SourceFileLoader

from fcgi import _fcgi, _removed
from fcgi._application import split
from fcgi._ends import Ended
from fcgi._isolation import Isolation
from fcgi._modules import CHANGERS, Uses, names_of
from fcgi._streams import Streams

Module = type(sys)
new = Module.__new__
modules = sys.modules
# The names of code that is not known: it may change anything.
EVERYTHING = Uses(CHANGERS)


class Script:
    """Runs the scripts of one interpreter."""

    def __init__(self, arguments, stdio):
        self.arguments, self.stdio = arguments, stdio
        self.streams = Streams(stdio)
        main = modules["__main__"].__dict__
        self.main = {k: main[k] for k in ("__name__", "__doc__", "__package__", "__spec__", "__builtins__")}
        self.annotations = "__annotations__" in main
        self.paths = {}
        self.environments = os.environ, os.environb
        self.serving = self.is_child = self.kept = False
        self.abandoned = None
        self.nobody = Module("__main__")
        self.uses = {}
        self.isolation = Isolation(self)
        self.streams.keep = self.isolation.keep
        os.register_at_fork(before=self.forks, after_in_parent=self.isolation.signals.has_forked, after_in_child=self.forked)
        sys.addaudithook(stdio.audit)

    # ---------------------------------------------------------------- a request

    def begin(self, path, environment, has_body):
        """Makes ready for a script; gives what calls functions in its context, and its globals."""
        self.serving, self.path = True, path
        environ, environb = self.environments
        environ._data = environb._data = environment
        known = self.paths.get(path)
        if known is None:
            known = self.paths[path] = self.know(path)
        where, folder, names = known
        main = modules["__main__"] = new(Module)
        globals = self.globals = main.__dict__
        # Of all names at once, an empty dictionary becomes a copy.
        globals.update(names)
        if self.annotations:
            globals["__annotations__"] = {}
        self.isolation.put("argv", [path, *self.arguments])
        if self.kept:
            self.kept = False
            self.streams.put_back()
        self.isolation.enter(where, folder, environment)
        self.streams.open(environment, has_body)
        return Context().run, globals

    def know(self, path):
        """The directory that a script runs in, the one that it imports from, what its module begins with."""
        real = os.path.join(os.path.dirname(path), os.readlink(path)) if os.path.islink(path) else path
        # In the order in which `python3` has them.
        names = {name: None for name in ("__name__", "__doc__", "__package__", "__loader__", "__spec__")}
        if self.annotations:
            names["__annotations__"] = None
        names.update(self.main, __loader__=SourceFileLoader("__main__", path), __file__=path)
        if sys.version_info < (3, 15):
            names["__cached__"] = None
        return os.path.dirname(path) or ".", os.path.realpath(os.path.dirname(real)), names

    def compile(self, path):
        """Compiles a script: gives its code, and the code of a second part when it may be an application."""
        with open(path, "rb") as file:
            source = file.read()
        first, rest = split(source, path)
        self.uses[path] = Uses(names_of(first) | (names_of(rest) if rest else set()))
        return first, rest

    def keep(self):
        """Lets go of a script that is an application, without an end; gives its module and its environment."""
        main = modules["__main__"]
        modules["__main__"] = self.nobody
        self.serving, self.globals, self.kept = False, None, True
        return main, os.environ._data

    def call(self, main, path, environment):
        """Makes ready for the application of a script: its module is `__main__`, its directory is where it is."""
        modules["__main__"] = main
        for one in self.environments:
            one._data = environment
        where, folder, _ = self.paths.get(path) or self.paths.setdefault(path, self.know(path))
        self.isolation.enter(where, folder, {})

    def close(self, status):
        """Ends the streams of a request whose script accepts the next one."""
        self.streams.close(status)

    def next(self, environment, has_body):
        """Makes ready for the next request of a script that loops."""
        for one in self.environments:
            one._data = environment
        self.streams.put_back()
        self.streams.forget()
        self.streams.open(environment, has_body)

    def end(self, exception):
        """Does what happens at the end of a process; gives the exit status."""
        if self.abandoned is not None:
            return self.forget(self.abandoned)
        status = 0 if exception is None else self.report(exception)
        exception = None
        if self.is_child:
            self.leave(status)
        try:
            try:
                self.isolation.finish()
            except _fcgi.RequestTimeout as e:
                status = self.report(e)
            status = self.streams.close(status)
            modules["__main__"] = self.nobody
            if _fcgi.clear_module(self.globals):
                status = self.streams.close(status)
            self.globals = None
        except Ended:
            pass
        if self.is_child:
            self.leave(status)
        return self.forget(status if self.abandoned is None else self.abandoned)

    def forget(self, status):
        """Puts the interpreter back to how it was before the script."""
        modules["__main__"] = self.nobody
        if self.abandoned is not None:
            self.streams.discard()
        if self.globals is not None:
            _fcgi.clear_module(self.globals)
        self.isolation.leave(self.uses.get(self.path, EVERYTHING))
        self.streams.forget()
        self.serving, self.globals, self.abandoned = False, None, None
        return status

    def abandon(self, status):
        """Ends the request where the script stands: as if the process were gone."""
        self.abandoned = status
        self.stdio.abandon(status)

    # ---------------------------------------------------------------- the end of a script

    def report(self, exception):
        """Says why a script ended; gives the exit status."""
        if isinstance(exception, SystemExit):
            return self.exit_status(exception)
        kind = type(exception)
        sys.last_type, sys.last_value, sys.last_traceback = kind, exception, exception.__traceback__
        if sys.version_info >= (3, 12):
            sys.last_exc = exception
        try:
            hook = sys.excepthook
        except AttributeError:
            print("sys.excepthook is missing", file=sys.stderr)
            hook = sys.__excepthook__
        try:
            if hook is not sys.__excepthook__:
                sys.audit("sys.excepthook", hook, kind, exception, exception.__traceback__)
            hook(kind, exception, exception.__traceback__)
        except SystemExit as e:
            return self.exit_status(e)
        except BaseException as e:
            e.__traceback__ = e.__traceback__ and e.__traceback__.tb_next
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(e), e, e.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(kind, exception, exception.__traceback__)
        if isinstance(exception, ModuleNotFoundError):
            _removed.hint(exception)
        return 130 if isinstance(exception, KeyboardInterrupt) else 1

    def exit_status(self, exception):
        code = exception.code
        if code is None:
            return 0
        if isinstance(code, int):
            return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
        try:
            print(code, file=sys.stderr)
        except BaseException:
            pass
        return 1

    # ---------------------------------------------------------------- children

    def forks(self):
        self.stdio.forks()
        self.isolation.signals.forks()

    def forked(self):
        """This process is a child that a script forked: a process as others are."""
        self.is_child = True
        _fcgi.forked()
        self.isolation.signals.forked()

    def leave(self, status):
        """Ends a child that the script forked and that came to the script's end."""
        try:
            self.isolation.finish()
            self.streams.close(status)
        finally:
            self.isolation.ends.exit(status)
