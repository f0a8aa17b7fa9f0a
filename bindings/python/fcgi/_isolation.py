"""Puts back what a script changed, and does what happens at the end of a process."""
import _thread
import _locale
import builtins
import os
import sys
import warnings

from fcgi import _fcgi
from fcgi._effects import FORMATTER, configured, loggers
from fcgi._ends import Ends
from fcgi._exits import Exits, unraisable
from fcgi._modules import Modules
from fcgi._notes import Counter, noted, tell
from fcgi._settings import Codecs, put_start_method
from fcgi._signals import Signals

modules = sys.modules


def registered(call):
    """The function that `threading` calls at the end: it keeps a partial, since Python 3.13 a lambda."""
    names = getattr(getattr(call, "__code__", None), "co_freevars", ())
    return call.__closure__[names.index("func")].cell_contents if "func" in names else getattr(call, "func", call)


def limited(function, *arguments):
    """Calls what runs functions of the script, for which the time limit holds."""
    before = _fcgi.limited(True)
    try:
        function(*arguments)
    finally:
        _fcgi.limited(before)


class Isolation:
    """How the interpreter was before the first script, and what came since."""

    Modules, Exits, Signals, Ends, Codecs = Modules, Exits, Signals, Ends, Codecs
    # Several requests have it at once.
    is_shared = False

    def of_request(self):
        """What the request that runs has of its own: so many functions of `atexit`."""
        return len(self.exits.functions)

    def __init__(self, script):
        self.script = script
        self.modules = self.Modules()
        self.exits = self.Exits(self.modules)
        # What puts back what functions of the library have changed; it is called behind the script.
        self.undo = set()
        self.signals = self.Signals(self.undo)
        self.ends = self.signals.ends = self.Ends(script)
        self.sys_path, self.path = sys.path, list(sys.path)
        own = os.environ.get("PYTHONPATH")
        self.own_path = len(own.split(os.pathsep)) if own and not sys.flags.ignore_environment else 0
        self.filters = warnings.filters
        lists = (sys.meta_path, sys.path_hooks, sys.warnoptions, self.filters)
        self.lists = [(l, list(l)) for l in lists]
        self.paths = {}
        self.zone = os.environ.get("TZ")
        self.seeded = self.watches_random = False
        for name, module in list(modules.items()):
            self.count_anew(name, module)
        self.codecs = self.Codecs(self)
        for name in ("umask", "chdir", "fchdir"):
            tell(self.on_move, name, os, modules["posix"])
        tell(self.on_move, "setlocale", _locale)
        if "locale" in modules:
            modules["locale"]._setlocale = _locale.setlocale
        self.interval = sys.getswitchinterval()
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
        # How loggers are that modules have set up, by their names; other loggers are as new, or gone.
        self.configured, self.loggers = configured(), set()
        self.keep_loggers(loggers())
        self.traces = _fcgi.Traces(self)
        self.modules.isolation = self

    def count_anew(self, name, module):
        """Lets the names of threads and processes that a module makes begin anew with each request."""
        if name == "threading" and not isinstance(module._counter, Counter):
            module._counter = Counter(1, self.undo)
        elif name == "multiprocessing.process" and not isinstance(module._process_counter, Counter):
            module._process_counter = Counter(1, self.undo)
        elif name == "concurrent.futures.thread" and not isinstance(module.ThreadPoolExecutor._counter, Counter):
            module.ThreadPoolExecutor._counter = Counter(0, self.undo)

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
        if "multiprocessing.util" in modules:
            limited(self.end_processes)
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

    def end_processes(self):
        """Waits for processes of `multiprocessing`, ends those that are daemons, and those that serve these."""
        util = modules["multiprocessing.util"]
        if modules["multiprocessing.process"]._children or util._finalizer_registry:
            try:
                util._exit_function()
            except Exception as e:
                unraisable(e, util._exit_function)
            util._exiting = False
        # Whoever makes a process has set it for all.
        if "multiprocessing.context" in modules and not self.is_shared:
            put_start_method(None)
        for name, attribute in (("forkserver", "_forkserver"), ("resource_tracker", "_resource_tracker")):
            server = getattr(modules.get("multiprocessing." + name), attribute, None)
            if server is not None and hasattr(server, "_stop"):
                try:
                    server._stop()
                except OSError:
                    pass  # Its socket is gone already.

    def run_finalizers(self, finalize):
        waiting = [(info.index, f) for f, info in list(finalize._registry.items()) if info.atexit]
        for _, f in sorted(waiting, key=lambda item: -item[0]):
            try:
                f()
            except Exception as e:
                sys.excepthook(type(e), e, e.__traceback__)
        if finalize._registry:
            # The others are not called any more.
            finalize._shutdown = True
            self.undo.add(self.leave_finalizers)

    @staticmethod
    def leave_finalizers():
        modules["weakref"].finalize._shutdown = False

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

    def keep_loggers(self, names):
        """Loggers that a module has made stay, and those above them."""
        for name in names:
            while name and name not in self.loggers:
                self.loggers.add(name)
                name = name.rpartition(".")[0]

    def leave_logging(self, logging):
        manager = logging.root.manager
        self.put_logger_back(logging, "", logging.root)
        if manager.disable:
            manager.disable = 0
        if manager.loggerClass is not None:
            manager.loggerClass = None
        if manager.logRecordFactory is not None:
            manager.logRecordFactory = None
        for name, logger in list(manager.loggerDict.items()):
            if isinstance(logger, logging.Logger):
                self.put_logger_back(logging, name, logger)
            # Those of modules that stay are kept by them.
            top = name.partition(".")[0]
            if name not in self.loggers and (top not in modules or top == "__main__"):
                del manager.loggerDict[name]
        levels, formatter = self.configured.get(None) or self.configured.setdefault(None, configured()[None])
        if logging._levelToName != levels:
            logging._levelToName.clear()
            logging._levelToName.update(levels)
            logging._nameToLevel.clear()
            logging._nameToLevel.update({name: level for level, name in levels.items()}, WARN=logging.WARNING, FATAL=logging.FATAL)
        for name, value in zip(FORMATTER, formatter):
            if getattr(logging.Formatter, name, None) is not value:
                setattr(logging.Formatter, name, value)

    def put_logger_back(self, logging, name, logger):
        handlers, level, filters, propagate, disabled = self.configured.get(name) or ((), 0 if name else 30, (), True, False)
        if logger.handlers and logger.handlers != list(handlers):
            null = [h for h in logger.handlers if isinstance(h, logging.NullHandler)]
            logger.handlers[:] = [*handlers, *null]
        if logger.level != level:
            logger.setLevel(level)
        if logger.filters != list(filters):
            logger.filters[:] = filters
        logger.propagate, logger.disabled = propagate, disabled

    def end_threads(self):
        """Ends threads that the script left, as the end of a process does."""
        for thread in set(sys._current_frames()) - self.threads - {_thread.get_ident()}:
            _fcgi.interrupt(thread, SystemExit)
