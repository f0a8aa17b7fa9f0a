"""Scripts whose requests run in child processes: what the interpreter is made ready for in the parent, and in the child."""
import gc
import importlib
import io
import os
import sys
import warnings
from importlib.machinery import SourceFileLoader

from fcgi._source import Warn, compile_whole

Module = type(sys)
modules = sys.modules
NAMES = ("<stdin>", "<stdout>", "<stderr>")
# Seconds that the modules of one request may take to be loaded.
PATIENCE = 30


class Forked:
    """The interpreter that children are forked from."""

    def __init__(self, arguments, at_start):
        self.arguments = arguments
        # What is loaded in every Python: no script's directory has a module in the place of one of these.
        self.at_start = frozenset(at_start)
        # What need not be tried any more, and those of it that children find loaded.
        self.known, self.loaded_here = set(modules), []
        self.path = list(sys.path)
        self.python_path = os.environ.get("PYTHONPATH")
        self.library = tuple({self.directory(module) for module in (os, io)} | set(map(self.slash, self.path)))
        main = modules["__main__"].__dict__
        self.main = {k: main[k] for k in ("__name__", "__doc__", "__package__", "__spec__", "__builtins__") if k in main}
        self.main.update(__name__="__main__", __doc__=None, __package__=None, __spec__=None)
        self.annotations = "__annotations__" in main
        streams = [s or sys.__stderr__ for s in (sys.__stdin__, sys.__stdout__, sys.__stderr__)]
        self.default = [(s.encoding, s.errors) if s else ("utf-8", "strict") for s in streams]
        # What warns of scripts that have been compiled.
        self.warn, self.is_child = {}, False
        self.unbuffered = bool(sys.__stdout__ and sys.__stdout__.write_through)
        self.settle()

    @staticmethod
    def slash(path):
        return path.rstrip(os.sep) + os.sep

    def directory(self, module):
        return self.slash(os.path.dirname(module.__file__))

    @staticmethod
    def settle():
        """Objects that stay are left alone by collectors of children, which else would copy the memory that they lie in."""
        gc.collect()
        gc.freeze()

    def compile(self, path):
        with open(path, "rb") as file:
            source = file.read()
        if self.is_child:
            return compile_whole(source, path)
        with warnings.catch_warnings(record=True) as given:
            code = compile_whole(source, path)
        self.warn[path] = Warn(given)
        return code

    # ---------------------------------------------------------------- in a child

    def begin(self, path, environment):
        """Makes this process what `python3` is when it starts a script; gives the script's globals."""
        self.take_signals()
        for one in (os.environ, os.environb):
            one._data = environment
        posix = modules["posix"].environ
        posix.clear()
        posix.update(environment)
        where = os.path.dirname(path) or "."
        real = os.path.join(where, os.readlink(path)) if os.path.islink(path) else path
        folder = os.path.realpath(os.path.dirname(real))
        os.chdir(where)
        own = () if sys.flags.isolated or getattr(sys.flags, "safe_path", False) else (folder,)
        sys.path[:] = [*own, *self.wanted_path(), *self.path]
        sys.argv = [path, *self.arguments]
        if own:
            self.make_way(folder)
        self.open_streams()
        main = Module("__main__")
        globals = main.__dict__
        globals.update(self.main, __loader__=SourceFileLoader("__main__", path), __file__=path)
        if sys.version_info < (3, 15):
            globals["__cached__"] = None
        if self.annotations:
            globals["__annotations__"] = {}
        modules["__main__"] = main
        self.is_child = True
        if path in self.warn:
            self.warn[path]()
        return globals

    @staticmethod
    def take_signals():
        import _signal

        for number in (_signal.SIGTERM, _signal.SIGQUIT, _signal.SIGUSR1):
            _signal.signal(number, _signal.SIG_DFL)
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)

    def wanted_path(self):
        """What the web server wants to be searched for modules."""
        wanted = os.environ.get("PYTHONPATH")
        if not wanted or wanted == self.python_path or sys.flags.ignore_environment:
            return []
        return [os.path.abspath(p) if p else os.getcwd() for p in wanted.split(os.pathsep) if wanted]

    def make_way(self, folder):
        """A module that lies beside the script comes before one of the library that it would not find loaded."""
        try:
            names = {name.partition(".")[0] for name in os.listdir(folder)}
        except OSError:
            return
        if any(name.partition(".")[0] in names for name in self.loaded_here):
            for name in self.loaded_here:
                modules.pop(name, None)

    def encodings(self):
        wanted = None if sys.flags.ignore_environment else os.environ.get("PYTHONIOENCODING")
        if wanted is None:
            return self.default
        encoding, _, errors = wanted.partition(":")
        return [
            (encoding or own, "backslashreplace" if number == 2 else errors or ("strict" if encoding else own_errors))
            for number, (own, own_errors) in enumerate(self.default)
        ]

    def open_streams(self):
        made = [self.stream(number, *how) for number, how in enumerate(self.encodings())]
        sys.stdin, sys.stdout, sys.stderr = made
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = made
        numpy = modules.get("numpy.random")
        if numpy is not None:
            # It does not know of forks: all children would draw the same numbers.
            numpy.seed()

    def stream(self, number, encoding, errors):
        raw = self.unbuffered and number > 0
        below = io.open(number, "wb" if number else "rb", 0 if raw else -1, closefd=False)
        (below if raw else below.raw).name = NAMES[number]
        stream = io.TextIOWrapper(below, encoding, errors, "\n", number == 2, self.unbuffered)
        stream.mode = "w" if number else "r"
        return stream

    def loaded(self):
        """The modules of the library that the script has loaded, and that the parent does not know."""
        return [name for name in list(modules) if name not in self.known and self.is_of_library(name)]

    def is_of_library(self, name):
        spec = getattr(modules.get(name), "__spec__", None)
        if not isinstance(name, str) or spec is None or spec.name != name:
            return False
        origin = spec.origin
        return origin in ("built-in", "frozen") or isinstance(origin, str) and origin.startswith(self.library)

    # ---------------------------------------------------------------- in the parent

    def preload(self, names):
        """Loads modules of the library that a child has loaded, if that leaves nothing else behind."""
        names = [name for name in names if name not in self.known]
        self.known.update(names)
        if not names:
            return
        if not in_child(self.is_harmless, names):
            # Those of a package before those in it.
            names = [name for name in names if in_child(self.is_harmless, [name])]
        for name in names:
            importlib.import_module(name)
        new = [name for name in modules if name not in self.at_start and name != "__main__" and not name.startswith("fcgi")]
        self.loaded_here = new
        self.known.update(new)
        self.settle()

    def is_harmless(self, names):
        """In a child: whether modules can be loaded without anybody's noticing it but by their being there."""
        from fcgi._modules import Watched
        from fcgi import _fcgi

        said = os.memfd_create("said")
        for number in (1, 2):
            os.dup2(said, number)
        self.open_streams()
        import warnings

        warnings.simplefilter("always")
        os.environ.__class__ = Watched
        Watched.looked = False
        dictionaries = [
            _fcgi.Snapshot(module.__dict__, {"__warningregistry__"})
            for name, module in list(modules.items())
            if name in self.at_start and name not in ("__main__", "sys") and type(module) is Module
        ]
        before = self.surroundings()
        for name in names:
            importlib.import_module(name)
        after = self.surroundings()
        sys.stdout.flush()
        sys.stderr.flush()
        changed = _fcgi.restore_all([], [], dictionaries)
        return before == after and not changed and not Watched.looked and os.fstat(said).st_size == 0

    @staticmethod
    def surroundings():
        """What a process has beside its modules."""
        import _signal

        handlers = [_signal.getsignal(number) for number in range(1, _signal.NSIG)]
        umask = os.umask(0o77)
        os.umask(umask)
        descriptors = os.listdir("/proc/self/fd")
        threads = os.listdir("/proc/self/task")
        environment = dict(os.environ._data)
        return handlers, umask, descriptors, threads, os.getcwd(), environment, list(sys.path), sys.excepthook


def in_child(function, *arguments):
    """Whether a function says yes in a child process."""
    import _signal

    child = os.fork()
    if child == 0:
        status = 1
        try:
            _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
            _signal.alarm(PATIENCE)
            status = 0 if function(*arguments) else 1
        except BaseException:
            pass
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0
