"""Runs ordinary scripts: each request in a `__main__` of its own, with streams, arguments and environment of its own."""
import _io
import _thread
import contextvars
import os
import sys
from importlib.machinery import SourceFileLoader

from fcgi import _fcgi, _removed
from fcgi._ends import Ended
from fcgi._isolation import Isolation

FileIO, BufferedReader, BufferedWriter = _io.FileIO, _io.BufferedReader, _io.BufferedWriter
TextIOWrapper = _io.TextIOWrapper
Module = type(sys)
modules = sys.modules


class Encoding:
    """How `python3` would read and write text: as this interpreter was started, unless a request's variables say otherwise."""

    def __init__(self):
        streams = [s or sys.__stderr__ for s in (sys.__stdin__, sys.__stdout__, sys.__stderr__)]
        self.default = [(s.encoding, s.errors) for s in streams]
        self.unbuffered = bool(sys.__stdout__ and sys.__stdout__.write_through)

    def of(self, environment):
        wanted = environment.get(b"PYTHONIOENCODING")
        if wanted is None or sys.flags.ignore_environment:
            return self.default
        encoding, _, errors = wanted.decode("ascii", "replace").partition(":")
        found = []
        for number, (own, own_errors) in enumerate(self.default):
            # Standard error always shows what it cannot encode.
            chosen = "backslashreplace" if number == 2 else errors or ("strict" if encoding else own_errors)
            found.append((encoding or own, chosen))
        return found


class Script:
    """Runs the scripts of one interpreter."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.encoding = Encoding()
        main = modules["__main__"].__dict__
        self.main = {k: main[k] for k in ("__name__", "__doc__", "__package__", "__spec__", "__builtins__")}
        self.annotations = "__annotations__" in main
        self.cached = sys.version_info < (3, 15)
        self.directories = {}
        self.request = None
        self.abandoned = None
        self.nobody = Module("__main__")
        self.had_children = False
        self.paths = {}
        self.isolation = Isolation(self)
        os.register_at_fork(after_in_child=self.forked, before=self.forks)
        sys.addaudithook(self.audit)

    # ---------------------------------------------------------------- a request

    def begin(self, request, path, environment):
        """Makes ready for a script; gives the context that it runs in, and its globals."""
        self.request = request
        self.had_children = False
        os.environ._data = os.environb._data = environment
        main = Module("__main__")
        names = main.__dict__
        names.update(self.main)
        if self.annotations:
            names["__annotations__"] = {}
        names["__loader__"] = SourceFileLoader("__main__", path)
        names["__file__"] = path
        if self.cached:
            names["__cached__"] = None
        modules["__main__"] = main
        self.globals = names
        sys.argv = [path, *self.arguments]
        directory = self.directories.get(path)
        if directory is None:
            folder = os.path.dirname(os.path.join(os.path.dirname(path), os.readlink(path)) if os.path.islink(path) else path)
            directory = self.directories[path] = (os.path.dirname(path) or ".", os.path.realpath(folder))
        self.isolation.enter(directory, environment)
        self.open_streams(request, environment)
        self.context = contextvars.Context()
        return self.context, names

    def compile(self, path):
        with open(path, "rb") as file:
            source = file.read()
        return compile(source, path, "exec", dont_inherit=True)

    def end(self, exception):
        """Does what happens at the end of a process; gives the exit status."""
        if self.abandoned is not None:
            return self.forget(self.abandoned)
        status = 0 if exception is None else self.report(exception)
        exception = None
        if _fcgi.is_forked():
            self.leave(status)
        try:
            self.isolation.finish()
            status = self.close_streams(status)
            modules["__main__"] = self.nobody
            _fcgi.clear_module(self.globals)
            status = self.close_streams(status)
        except Ended:
            pass
        if _fcgi.is_forked():
            self.leave(status)
        return self.forget(status if self.abandoned is None else self.abandoned)

    def forget(self, status):
        """Puts the interpreter back to how it was before the script."""
        modules["__main__"] = self.nobody
        self.isolation.leave()
        sys.stdin = sys.stdout = sys.stderr = sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None
        _fcgi.clear_module(self.globals)
        self.request = self.globals = self.context = self.plain_flush = self.abandoned = None
        return status

    def abandon(self, status):
        """Ends the request where the script stands: as if the process were gone."""
        self.abandoned = status
        _fcgi.end_request(self.request, status, self.had_children)

    # ---------------------------------------------------------------- streams

    def open_streams(self, request, environment):
        stdin, stdout, stderr = self.encoding.of(environment)
        raw = FileIO(0, "rb", closefd=False)
        raw.name = "<stdin>"
        sys.stdin = sys.__stdin__ = TextIOWrapper(BufferedReader(raw, self.buffer_size(raw)), *stdin)
        sys.stdin.mode = "r"
        sys.stdout = sys.__stdout__ = self.output(1, "<stdout>", request.write_descriptor, request.flush, stdout, False)
        sys.stderr = sys.__stderr__ = self.output(2, "<stderr>", request.write_error_descriptor, None, stderr, True)
        self.streams = (sys.stdout, sys.stderr)

    def buffer_size(self, raw):
        size = raw._blksize
        return size if sys.version_info < (3, 14) else max(min(size, 8 << 20), 128 << 10)

    def output(self, number, name, write, flush, encoding, by_lines):
        raw = FileIO(number, "wb", closefd=False)
        raw.write = write
        raw.name = name
        if self.encoding.unbuffered:
            stream = TextIOWrapper(raw, *encoding, "\n", by_lines, True)
        else:
            buffer = BufferedWriter(raw, self.buffer_size(raw))
            if flush:
                plain = buffer.flush

                def flush_all():
                    plain()
                    if self.request is not None:
                        flush()

                self.plain_flush = (buffer, plain)
                buffer.flush = flush_all
            stream = TextIOWrapper(buffer, *encoding, "\n", by_lines)
        stream.mode = "w"
        return stream

    def close_streams(self, status):
        """Writes out what is left; as `python3`, with status 120 when that cannot be done."""
        if not self.encoding.unbuffered:
            # At the end, all goes out at once.
            self.plain_flush[0].__dict__.pop("flush", None)
        failed = False
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except AttributeError:
                pass
            except BaseException as e:
                if stream is not sys.stderr:
                    failed = True
                    self.unraisable(stream, e)
        return 120 if failed and status == 0 else status

    def unraisable(self, stream, exception):
        try:
            sys.stderr.write("Exception ignored in: %r\n" % (stream,))
            sys.__excepthook__(type(exception), exception, None)
        except BaseException:
            pass

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

    def audit(self, event, arguments):
        if event in _CHILDREN:
            self.had_children = True

    def forks(self):
        self.had_children = True

    def forked(self):
        _fcgi.forked()

    def leave(self, status):
        """Ends a child that the script forked and that came to the script's end."""
        try:
            self.isolation.finish()
            self.close_streams(status)
        finally:
            os._exit(status)


_CHILDREN = frozenset(("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty"))
