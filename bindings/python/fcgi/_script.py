"""Runs ordinary scripts: each request in a `__main__` of its own, with streams, arguments and environment of its own."""
import os
import sys
from importlib.machinery import SourceFileLoader

from fcgi import _fcgi, _removed
from fcgi._application import split
from fcgi._isolation import Isolation
from fcgi._modules import CHANGERS, Uses, names_of
from fcgi._source import compile_script
from fcgi._streams import Streams

Module = type(sys)
modules = sys.modules
# The names of code that is not known: it may change anything.
EVERYTHING = Uses(CHANGERS)


class Script:
    """Runs the scripts of one interpreter."""

    # Whether what it leaves behind is told: by a `forget` of its own.
    is_audited = False
    unknown_uses = EVERYTHING

    def __init__(self, arguments, stdio):
        self.arguments, self.stdio = arguments, stdio
        self.streams = Streams(stdio)
        main = modules["__main__"].__dict__
        self.main = {k: main[k] for k in ("__name__", "__doc__", "__package__", "__spec__", "__builtins__")}
        self.annotations = "__annotations__" in main
        self.paths = {}
        self.environments = os.environ, os.environb
        self.nobody = Module("__main__")
        self.uses = {}
        self.isolation = Isolation(self)
        self.streams.keep = self.isolation.keep
        self.turn = _fcgi.Turn(self)
        os.register_at_fork(before=self.forks, after_in_parent=self.isolation.signals.has_forked, after_in_child=self.forked)
        sys.addaudithook(stdio.audit)

    # ---------------------------------------------------------------- a request

    @property
    def begin(self):
        """Makes ready for a script; gives what calls functions in its context, and its globals."""
        return self.turn.begin

    @property
    def end(self):
        """Does what happens at the end of a process; gives the exit status."""
        return self.turn.end

    @property
    def serving(self):
        """Whether a script runs for a request."""
        return self.turn.serving

    def known(self, path):
        """What is known of a script."""
        known = self.paths.get(path)
        if known is None:
            known = self.paths[path] = self.know(path)
        return known

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
        """Compiles a script: gives its code, the code of a second part when it may be an application, and what warns of it."""
        with open(path, "rb") as file:
            source = file.read()
        first, rest, warn = compile_script(split, source, path)
        self.uses[path] = Uses(names_of(first) | (names_of(rest) if rest else set()))
        return first, rest, warn

    def keep(self):
        """Lets go of a script that is an application, without an end; gives its module and its environment."""
        main = modules["__main__"]
        modules["__main__"] = self.nobody
        self.turn.keep()
        return main, os.environ._data

    def call(self, main, path, environment):
        """Makes ready for the application of a script: its module is `__main__`, its directory is where it is."""
        modules["__main__"] = main
        for one in self.environments:
            one._data = environment
        where, folder, _ = self.known(path)
        self.turn.elsewhere()
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

    def forget(self, status):
        """Puts the interpreter back to how it was before the script."""
        return self.turn.forget(status)

    def abandon(self, status):
        """Ends the request where the script stands: as if the process were gone."""
        self.turn.abandon(status)
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
        _fcgi.forked()
        self.isolation.signals.forked()

    def leave(self, status):
        """Ends a child that the script forked and that came to the script's end."""
        try:
            try:
                self.isolation.finish()
            finally:
                self.streams.close(status)
        finally:
            self.isolation.ends.exit(status)
