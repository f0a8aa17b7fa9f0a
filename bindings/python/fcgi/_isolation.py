"""Puts back what a script changed, and does what happens at the end of a process."""
import _thread
import _locale
import _signal
import atexit
import builtins
import gc
import os
import signal
import sys
import warnings
from types import SimpleNamespace

from fcgi import _fcgi
from fcgi._ends import Ends
from fcgi._modules import Modules
from fcgi._notes import noted, tell

modules = sys.modules


class Exits:
    """Functions that `atexit` is to call. Those of modules that stay are called when the process ends."""

    def __init__(self, loaded):
        self.modules = loaded
        self.functions = []
        self.originals = {name: getattr(atexit, name) for name in ("register", "unregister", "_clear", "_ncallbacks")}
        for name in ("register", "unregister", "_clear", "_run_exitfuncs", "_ncallbacks"):
            method = getattr(self, name.lstrip("_"))
            setattr(atexit, name, lambda *arguments, _method=method, **named: _method(*arguments, **named))

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
        while self.functions:
            func, arguments, named = self.functions.pop()
            try:
                func(*arguments, **named)
            except SystemExit as e:
                failed = e
            except BaseException as e:
                failed = e
                e.__traceback__ = e.__traceback__ and e.__traceback__.tb_next
                unraisable(e, func)
        return failed


def is_finalizer(func):
    """Whether a function is what `weakref.finalize` registers once and for all."""
    return getattr(func, "__qualname__", "") == "finalize._exitfunc"


def registered(call):
    """The function that `threading` calls at the end: it keeps a partial, since Python 3.13 a lambda."""
    names = getattr(getattr(call, "__code__", None), "co_freevars", ())
    return call.__closure__[names.index("func")].cell_contents if "func" in names else getattr(call, "func", call)


def unraisable(exception, func):
    """Tells of an exception that nobody can catch, as `python3` does."""
    if sys.version_info < (3, 10):
        print("Error in atexit._run_exitfuncs:", file=sys.stderr)
    elif sys.unraisablehook is not sys.__unraisablehook__:
        what = dict(exc_type=type(exception), exc_value=exception, exc_traceback=exception.__traceback__)
        sys.unraisablehook(SimpleNamespace(err_msg="Exception ignored in atexit callback", object=func, **what))
        return
    else:
        print("Exception ignored in atexit callback: %r" % (func,), file=sys.stderr)
    sys.__excepthook__(type(exception), exception, exception.__traceback__)


def limited(function, *arguments):
    """Calls what runs functions of the script, for which the time limit holds."""
    before = _fcgi.limited(True)
    try:
        function(*arguments)
    finally:
        _fcgi.limited(before)


# Signals that the process itself has handlers for.
OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGPIPE)


class Signals:
    """Handlers and timers of signals."""

    def __init__(self, undo):
        self.undo = undo
        self.set_signal = _signal.signal
        self.changed = set()
        self.timers = False
        self.set_timer = _signal.setitimer
        self.masked = False
        self.set_mask = _signal.pthread_sigmask
        self.mask = self.set_mask(signal.SIG_BLOCK, ())
        # The process's own handlers stay, and do not show.
        saved = _fcgi.save_signals()
        self.original = {}
        for number in range(1, signal.NSIG):
            try:
                handler = _signal.getsignal(number)
                if handler is None or number == signal.SIGPIPE or (number == signal.SIGINT and handler == _signal.SIG_DFL):
                    handler = _signal.SIG_IGN if number == signal.SIGPIPE else _signal.SIG_DFL
                    if number == signal.SIGINT:
                        handler = _signal.default_int_handler
                    self.set_signal(number, handler)
                self.original[number] = handler
            except (OSError, ValueError, RuntimeError):
                pass
        _fcgi.restore_signals(saved)
        self.saved = saved
        tell(self.on_signal, "signal", _signal)
        tell(self.on_timer, "alarm", _signal, signal)
        tell(self.on_timer, "setitimer", _signal, signal)
        tell(self.on_mask, "pthread_sigmask", _signal)

    def forks(self):
        """Keeps signals from a child until it is one."""
        self.mask_then = self.set_mask(signal.SIG_BLOCK, OURS)

    def has_forked(self):
        """The fork is over, in the parent."""
        self.set_mask(signal.SIG_SETMASK, self.mask_then)

    def forked(self):
        """Lets signals do what Python thinks that they do: the process's own handlers are not the child's."""
        for number in OURS:
            self.set_signal(number, _signal.getsignal(number))
        self.set_mask(signal.SIG_SETMASK, self.mask_then)

    def on_signal(self, number, *_):
        self.changed.add(int(number))
        self.undo.add(self.leave)

    def on_timer(self, *_):
        self.timers = True
        self.undo.add(self.leave)

    def on_mask(self, *_):
        self.masked = True
        self.undo.add(self.leave)

    def leave(self):
        if self.timers:
            self.timers = False
            for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
                self.set_timer(timer, 0)
        if self.changed:
            for number in self.changed:
                if number in self.original:
                    self.set_signal(number, self.original[number])
            self.changed.clear()
            _fcgi.restore_signals(self.saved)
        if self.masked:
            self.set_mask(signal.SIG_SETMASK, self.mask)
            self.masked = False


class Isolation:
    """How the interpreter was before the first script, and what came since."""

    Modules, Exits, Signals, Ends = Modules, Exits, Signals, Ends

    def __init__(self, script):
        self.script = script
        self.modules = self.Modules()
        self.exits = self.Exits(self.modules)
        # What puts back what functions of the library have changed; it is called behind the script.
        self.undo = set()
        self.signals = self.Signals(self.undo)
        self.ends = self.Ends(script)
        self.sys_path, self.path = sys.path, list(sys.path)
        own = os.environ.get("PYTHONPATH")
        self.own_path = len(own.split(os.pathsep)) if own and not sys.flags.ignore_environment else 0
        self.filters = warnings.filters
        lists = (sys.meta_path, sys.path_hooks, sys.warnoptions, self.filters)
        self.lists = [(l, list(l)) for l in lists]
        self.paths = {}
        self.zone = os.environ.get("TZ")
        self.seeded = self.watches_random = False
        for name in ("umask", "chdir", "fchdir"):
            tell(self.on_move, name, os, modules["posix"])
        tell(self.on_move, "setlocale", _locale)
        if "locale" in modules:
            modules["locale"]._setlocale = _locale.setlocale
        self.interval = sys.getswitchinterval()
        self.gc = gc.isenabled(), gc.get_threshold()
        self.umask = _fcgi.umask()
        self.locale = _fcgi.locale()
        self.directory = None
        self.threads = set(sys._current_frames())
        # Threads of requests that took too long.
        self.left = []
        sys.argv = []
        changing = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__", "argv"}
        # Those that were replaced above are as they should be.
        self.modules.snapshots.clear()
        for name in list(self.modules.known):
            self.modules.learn(name, modules[name])
        self.sys_snapshot = [_fcgi.Snapshot(sys.__dict__, changing)]
        self.put, self.keep = self.sys_snapshot[0].put, self.sys_snapshot[0].keep
        self.snapshots = [*self.sys_snapshot, _fcgi.Snapshot(builtins.__dict__, {"_"})]
        self.traces = _fcgi.Traces(self)

    def on_move(self, *_):
        """The process is no longer where it was."""
        self.undo.add(self.leave_process)

    # ------------------------------------------------------------ before a script

    def enter(self, where, folder, environment):
        """Makes ready for a script that runs in one directory and imports from another. Gives its search path, unless that is
        for this request alone."""
        if self.directory != where:
            os.chdir(where)
            self.directory = where
        path = None
        if b"PYTHONPATH" in environment:
            wanted = [*self.own(folder), *self.wanted_path(environment), *self.path]
        else:
            path = self.paths.get(folder)
            if path is None:
                path = self.paths[folder] = [*self.own(folder), *self.path]
            wanted = path
        if self.sys_path != wanted:
            self.sys_path[:] = wanted
        if self.modules.folder is not folder:
            self.modules.enter(folder)
        self.undo.discard(self.leave_process)
        return path

    def own(self, folder):
        """The script's own directory, unless an option such as -I keeps Python from searching it."""
        return () if sys.flags.isolated or getattr(sys.flags, "safe_path", False) else (folder,)

    def wanted_path(self, environment):
        """What the web server wants to be searched for modules."""
        if self.own_path or sys.flags.ignore_environment:
            return []
        wanted = os.fsdecode(environment[b"PYTHONPATH"])
        return [os.path.abspath(p) if p else os.getcwd() for p in wanted.split(os.pathsep) if wanted]

    # ------------------------------------------------------------ the end of a process

    def finish(self):
        """What happens at the end of a process: threads are waited for, functions of `atexit` called."""
        if _thread._count() or "concurrent.futures" in modules:
            limited(self.join_threads)
        if self.exits.functions:
            limited(self.exits.run_exitfuncs)
        weakref = modules.get("weakref")
        if weakref and weakref.finalize._registry:
            limited(self.run_finalizers, weakref.finalize)
        logging = modules.get("logging")
        if logging and logging._handlerList:
            limited(self.close_handlers, logging)

    def join_threads(self):
        threading = modules.get("threading")
        if threading is None:
            return
        callbacks = getattr(threading, "_threading_atexits", None)
        if callbacks:
            for callback in reversed(list(callbacks)):
                callback()
            for name, flag in (("concurrent.futures.thread", "_shutdown"), ("concurrent.futures.process", "_global_shutdown")):
                if name in modules:
                    setattr(modules[name], flag, False)
            # Those of modules that stay are for each request.
            functions = [(c, registered(c)) for c in callbacks]
            callbacks[:] = [c for c, f in functions if (getattr(f, "__module__", "") or "").startswith("concurrent.futures")]
        if _thread._count() == 0:
            return
        current = threading.current_thread()
        while True:
            running = threading.enumerate()
            self.left = [t for t in self.left if t in running]
            waiting = [
                t for t in running if not t.daemon and t is not current and t.ident not in self.threads
                and t is not threading.main_thread() and t not in self.left
            ]
            if not waiting:
                return
            try:
                for thread in waiting:
                    thread.join()
            except _fcgi.RequestTimeout:
                self.left += waiting
                raise

    def run_finalizers(self, finalize):
        waiting = [(info.index, f) for f, info in list(finalize._registry.items()) if info.atexit]
        for _, f in sorted(waiting, key=lambda item: -item[0]):
            try:
                f()
            except Exception as e:
                sys.excepthook(type(e), e, e.__traceback__)

    def close_handlers(self, logging):
        for reference in reversed(logging._handlerList[:]):
            handler = reference()
            if handler is None or handler is logging.lastResort:
                continue
            try:
                handler.acquire()
                try:
                    handler.flush()
                    handler.close()
                except (OSError, ValueError):
                    pass
                finally:
                    handler.release()
            except BaseException:
                pass

    # ------------------------------------------------------------ behind a script

    def leave(self, uses):
        """Puts back what a script changed whose code is as `uses` says."""
        self.traces.leave(uses)

    def has_put_back(self, names, numbers):
        """Modules are as they were, of these names those with these numbers."""
        if "time" in [names[number] for number in numbers]:
            self.leave_time(modules["time"])

    def leave_settings(self):
        sys.setswitchinterval(self.interval)
        sys.settrace(None)
        sys.setprofile(None)

    def leave_gc(self):
        (gc.enable if self.gc[0] else gc.disable)()
        gc.set_threshold(*self.gc[1])

    def libraries(self):
        """Finds out which modules are there that keep something by functions of their own; gives what puts that back."""
        leaves = {
            "_socket": self.leave_socket,
            "logging": self.leave_logging,
            "gettext": self.leave_gettext,
            "asyncio.events": self.leave_asyncio,
            "random": self.leave_random,
        }
        return [(name, leave) for name, leave in leaves.items() if name in modules]

    def leave_time(self, time):
        if self.zone is None:
            os.unsetenv("TZ")
        else:
            os.putenv("TZ", self.zone)
        time.tzset()
        self.modules.snapshots["time"].restore()

    def leave_process(self):
        self.directory = None
        _fcgi.set_umask(self.umask)
        if _fcgi.locale() != self.locale:
            _fcgi.set_locale(self.locale)

    @staticmethod
    def leave_socket(socket):
        if socket.getdefaulttimeout() is not None:
            socket.setdefaulttimeout(None)

    @staticmethod
    def leave_gettext(gettext):
        gettext._localedirs.clear()

    @staticmethod
    def leave_asyncio(asyncio):
        asyncio._set_running_loop(None)

    def leave_random(self, random):
        if not self.watches_random:
            self.watches_random = self.seeded = True
            # They are bound methods, of the generator that the module's functions use.
            for name in ("seed", "setstate"):
                setattr(random, name, noted(getattr(random._inst, name), self.on_seed))
            self.modules.learn("random", random)
        if self.seeded:
            self.seeded = False
            random._inst.seed()

    def on_seed(self, *_):
        """Random numbers can be foretold."""
        self.seeded = True

    def leave_logging(self, logging):
        root = logging.root
        if root.handlers:
            root.handlers[:] = []
        if root.level != logging.WARNING:
            root.setLevel(logging.WARNING)
        root.filters[:] = []
        manager = root.manager
        if manager.disable:
            manager.disable = 0
        for name, logger in list(manager.loggerDict.items()):
            # Those of modules that stay are kept by them.
            if name.partition(".")[0] not in modules or name.partition(".")[0] == "__main__":
                del manager.loggerDict[name]
            elif isinstance(logger, logging.Logger):
                kept = [h for h in logger.handlers if isinstance(h, logging.NullHandler)]
                if kept != logger.handlers:
                    logger.handlers[:] = kept
                if logger.level:
                    logger.setLevel(logging.NOTSET)
                logger.propagate, logger.disabled = True, False
        if getattr(logging, "_warnings_showwarning", None) is not None:
            logging.captureWarnings(False)

    def end_threads(self):
        """Ends threads that the script left, as the end of a process does."""
        for thread in set(sys._current_frames()) - self.threads - {_thread.get_ident()}:
            _fcgi.interrupt(thread, SystemExit)
