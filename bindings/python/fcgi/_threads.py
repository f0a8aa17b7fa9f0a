"""Runs ordinary scripts in several threads of one process, each for a request of its own.

What `_current`, `_own_modules` and `_own_descriptors` give to requests is theirs alone. What the process has once is put back
when no request runs: modules of the library, warnings, limits. What would disturb other requests does nothing.
"""
import _locale
import _signal
import _thread
import concurrent.futures.thread as futures
import locale
import logging
import os
import signal
import sys
import threading
import weakref
from contextvars import Context

from fcgi import _fcgi, _script
from fcgi._current import Bound, Request, answering, current, get_ident, inherit_request, running, share_environment, share_sys
from fcgi._ends import Ended
from fcgi._signals import OURS
from fcgi._notes import like, tell
from fcgi._own_descriptors import replace, share_descriptors
from fcgi._own_modules import Main, share_imports
from fcgi._own_streams import OwnStreams
from fcgi._shared import SharedIsolation, keeps

Module = type(sys)
modules = sys.modules
# What `python3` does about signals before a script does something.
AS_STARTED = {signal.SIGINT: _signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN}


class Shared:
    """What the threads of a process have in common."""

    def __init__(self):
        self.lock = _thread.allocate_lock()
        self.running = 0
        self.set_mask = _signal.pthread_sigmask
        self.mask = self.set_mask(signal.SIG_BLOCK, ())
        self.process_streams = share_sys()
        self.putenv, self.unsetenv = share_environment()
        inherit_request()
        share_descriptors()
        self.share_signals()
        self.share_library()
        share_imports()
        names = modules["__main__"].__dict__
        self.main = {k: names[k] for k in ("__name__", "__doc__", "__package__", "__spec__")}
        modules["__main__"] = Main("__main__")
        self.isolation = SharedIsolation(self)
        os.register_at_fork(before=self.forks, after_in_parent=self.has_forked, after_in_child=self.forked)

    # ---------------------------------------------------------------- requests come and go

    def enter(self, names):
        with self.lock:
            self.running += 1
            self.isolation.modules.used(names)

    def leave(self):
        """The last one out puts back what all have in common."""
        with self.lock:
            self.running -= 1
            if self.running == 0:
                self.isolation.leave(self.isolation.modules.pending)

    # ---------------------------------------------------------------- children

    def forks(self):
        request = current()
        if request is not None:
            request.channel.children()
            for number in range(3):
                request.channel.fileno(number)
            request.mask = self.set_mask(signal.SIG_BLOCK, OURS)

    def has_forked(self):
        request = current()
        if request is not None:
            self.set_mask(signal.SIG_SETMASK, request.mask)

    def forked(self):
        """This process is a child that a script forked: a process as others are, with the request's environment."""
        request = current()
        if request is None:
            return
        if not hasattr(request, "is_terminal"):
            request.channel.become_process()
        _fcgi.forked()
        for name in list(os.environ):
            self.unsetenv(name)
        for name, value in request.child_environment().items():
            self.putenv(name, value)
        for number in OURS:
            self.set_signal(number, _signal.SIG_DFL if number != signal.SIGPIPE else _signal.SIG_IGN)
        for number, handler in request.signals.items():
            self.set_signal(number, handler)
        self.set_mask(signal.SIG_SETMASK, request.mask)

    # ---------------------------------------------------------------- what does nothing

    def share_signals(self):
        """Keeps the handlers that requests set: they are called for what a script sends to itself, and in children."""
        self.set_signal = plain_signal = _signal.signal
        plain_getsignal = _signal.getsignal

        def own_handler(number):
            request = current()
            if request is None or _fcgi.is_forked():
                return None
            if int(number) in request.signals:
                return request.signals[int(number)]
            plain_getsignal(number)
            return AS_STARTED.get(number, signal.SIG_DFL)

        def make_signal(plain):
            def set_handler(signalnum, handler, /):
                before = own_handler(signalnum)
                if before is None:
                    return plain(signalnum, handler)
                if not callable(handler) and handler not in (_signal.SIG_DFL, _signal.SIG_IGN):
                    raise TypeError("signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object")
                current().signals[int(signalnum)] = handler
                return before

            return set_handler

        def make_getsignal(plain):
            def getsignal(signalnum, /):
                handler = own_handler(signalnum)
                return plain(signalnum) if handler is None else handler

            return getsignal

        def on_mask(*_):
            request = current()
            if request is not None:
                request.masked = True

        tell(on_mask, "pthread_sigmask", _signal)
        replace("signal", make_signal, _signal)
        replace("getsignal", make_getsignal, _signal)
        for name, nothing in (("alarm", 0), ("setitimer", (0.0, 0.0)), ("siginterrupt", None)):
            replace(name, self.nothing("signal." + name, nothing), _signal, signal)

    @staticmethod
    def nothing(name, gives):
        """Makes a function that does nothing for a request."""

        def make(plain):
            def function(*arguments):
                if current() is None or _fcgi.is_forked():
                    return plain(*arguments)
                if any(arguments[:2]):
                    _fcgi.not_with_threads(name + "()")
                return gives

            return function

        return make

    def share_library(self):
        """What libraries keep for the end of the process is kept for the end of the request."""

        def make_setlocale(plain):
            def setlocale(category, locale=None, /):
                if locale is not None and current() is not None and not _fcgi.is_forked():
                    if plain(category) != locale:
                        _fcgi.not_with_threads("locale.setlocale()")
                    locale = None
                return plain(category, locale)

            return setlocale

        locale._setlocale = _locale.setlocale
        replace("setlocale", make_setlocale, _locale)
        locale._setlocale = _locale.setlocale

        def make_main_thread(plain):
            def main_thread():
                request = current()
                return plain() if request is None or _fcgi.is_forked() else request.script.thread

            return main_thread

        replace("main_thread", make_main_thread, threading)
        keeps(weakref.finalize, "finalizers", lambda finalizer: finalizer)
        keeps(logging.Handler, "handlers", weakref.ref)
        keeps(futures.ThreadPoolExecutor, "pools", lambda pool: pool)
        submit = futures.ThreadPoolExecutor.submit

        def submit_for_request(self, fn, /, *args, **kwargs):
            request = current()
            return submit(self, fn if request is None else Bound(fn, request), *args, **kwargs)

        futures.ThreadPoolExecutor.submit = like(submit_for_request, submit)


shared = None
making = _thread.allocate_lock()


def make_shared():
    global shared
    with making:
        if shared is None:
            shared = Shared()
    return shared


class Script(_script.Script):
    """Runs the scripts of one thread."""

    def __init__(self, arguments, stdio):
        self.shared = make_shared()
        self.arguments, self.stdio = arguments, stdio
        self.isolation = self.shared.isolation
        self.streams = OwnStreams(stdio)
        self.main = {**self.shared.main, "__builtins__": modules["builtins"]}
        self.annotations = sys.version_info < (3, 14)
        self.paths, self.uses = {}, {}
        self.request = self.globals = self.abandoned = self.directory = None
        self.thread = threading.current_thread()
        if getattr(self.thread, "_tstate_lock", self) is None:
            # Children that it forks end as those of the first one do.
            self.thread._set_tstate_lock()
        # For scripts it is the first one: theirs are joined, unless they are daemons.
        self.thread.__class__ = type(threading._main_thread)
        self.thread._daemonic, self.thread._name = False, threading._main_thread._name

    # ---------------------------------------------------------------- a request

    def begin(self, path, environment, _):
        """Makes ready for a script; gives what calls functions in its context, and its globals."""
        where, folder, names = self.paths.get(path) or self.paths.setdefault(path, self.know(path))
        self.go(where)
        self.request = request = Request(self, environment, self.stdio.channel())
        request.main = main = Module("__main__")
        request.prefix = folder + os.sep
        request.sys["argv"] = [path, *self.arguments]
        request.sys["path"] = self.isolation.path_of(folder, environment)
        globals = self.globals = main.__dict__
        globals.update(names)
        if self.annotations:
            globals["__annotations__"] = {}
        self.shared.enter(self.uses.get(path, _script.EVERYTHING).names)
        running[get_ident()] = request
        try:
            self.streams.open(request)
        except BaseException:
            self.forget(1)
            raise
        return Context().run, globals

    def keep(self):
        """Lets go of a script that is an application, without an end; gives its module and its environment."""
        main, environment, folder = self.request.main, self.request.environment, self.request.prefix[:-1]
        self.away()
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return main, environment

    def call(self, main, path, environment):
        """Makes ready for the application of a script: what it finds is the process's, but for its module, its environment and
        its directory."""
        answering[get_ident()] = main, environment
        self.go((self.paths.get(path) or self.paths.setdefault(path, self.know(path)))[0])
        # Nobody hears of it when the application goes elsewhere.
        self.directory = None

    def go(self, where):
        """Takes this thread to a directory, with the umask of the process."""
        if self.directory != where:
            os.chdir(where)
            _fcgi.set_umask(self.isolation.umask)
            self.directory = where

    def close(self, status):
        """Ends the streams of a request whose script accepts the next one."""
        self.streams.close(status)
        self.request.channel.close()

    def next(self, environment, _):
        """Makes ready for the next request of a script that loops."""
        request = self.request
        request.environment, request.block, request.channel = environment, None, self.stdio.channel()
        self.streams.open(request)

    def end(self, exception):
        """Does what happens at the end of a process; gives the exit status."""
        if self.abandoned is not None:
            return self.forget(self.abandoned)
        status = 0 if exception is None else self.report(exception)
        exception = None
        if _fcgi.is_forked():
            self.leave(status)
        try:
            try:
                self.isolation.finish()
            except _fcgi.RequestTimeout as e:
                status = self.report(e)
            status = self.streams.close(status)
            self.request.main = None
            if _fcgi.clear_module(self.globals):
                status = self.streams.close(status)
            self.globals = None
        except Ended:
            pass
        if _fcgi.is_forked():
            self.leave(status)
        return self.forget(status if self.abandoned is None else self.abandoned)

    def forget(self, status):
        """Ends what the request has had for itself."""
        request = self.request
        try:
            if self.abandoned is not None:
                self.streams.discard()
            request.main = None
            if self.globals is not None:
                _fcgi.clear_module(self.globals)
            for thread in request.threads:
                if thread.is_alive():
                    _fcgi.interrupt(thread.ident, SystemExit)
            # What stands in place of a stream may write as it goes.
            request.sys.clear()
            request.channel.close()
            if sys.gettrace() is not None:
                sys.settrace(None)
            if sys.getprofile() is not None:
                sys.setprofile(None)
            if request.moved:
                self.directory = None
            if request.masked:
                self.shared.set_mask(signal.SIG_SETMASK, self.shared.mask)
        finally:
            self.away()
        return status

    def away(self):
        """The thread works for no request."""
        running.pop(get_ident(), None)
        self.request = self.globals = self.abandoned = None
        self.streams.forget()
        self.shared.leave()

    def abandon(self, status):
        """Ends the request where the script stands: as if the process were gone."""
        self.abandoned = status
        self.request.channel.abandon(status)
