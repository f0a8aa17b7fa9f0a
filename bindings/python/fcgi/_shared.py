"""What requests that run in one process have in common: modules, and what happens at the end of a script."""
import _thread
import concurrent.futures.thread as futures
import logging
import os
import signal
import sys
import threading

from fcgi import _fcgi
from fcgi._current import current
from fcgi._ends import FATAL, Ended, Ends
from fcgi._exits import Exits
from fcgi._isolation import Isolation, limited
from fcgi._modules import Modules, Uses
from fcgi._notes import noted
from fcgi._own_modules import Loading


class SharedModules(Modules):
    """The modules of a process in which several requests run."""

    def __init__(self):
        super().__init__()
        # What all code that has run can change.
        self.pending = Uses(set())

    @property
    def current(self):
        request = current()
        return request and request.loading

    @current.setter
    def current(self, _):
        pass

    def loading(self, module):
        return Loading(self, module)

    def loaded(self, name, module):
        if name == "concurrent.futures.process":
            keeps(module.ProcessPoolExecutor, "pools", lambda pool: pool)

    def used(self, names):
        """Code that runs uses these names."""
        if not self.pending.names.issuperset(names):
            self.pending = Uses(self.pending.names | names)


class SharedExits(Exits):
    """Functions that `atexit` is to call, of each request."""

    @property
    def functions(self):
        request = current()
        return [] if request is None else request.exits

    @functions.setter
    def functions(self, _):
        pass

    def register(self, func, /, *arguments, **named):
        if current() is None:
            return self.originals["register"](func, *arguments, **named)
        return super().register(func, *arguments, **named)


class SharedEnds(Ends):
    """How a request ends, where the process is not the script's."""

    forking = _thread.allocate_lock()

    @property
    def serves(self):
        return current() is not None and not _fcgi.is_forked()

    def end(self, status):
        current().script.abandon(status)
        raise Ended

    def without_warning(self, fork):
        # What is kept from warning is the process's.
        with self.forking:
            return Ends.without_warning(fork)

    def do_forkpty(self):
        request = current()
        request.is_terminal = True
        try:
            return super().do_forkpty()
        finally:
            del request.is_terminal

    def do_kill(self, pid, number, /):
        if self.serves and pid == os.getpid():
            return self.signal(number)
        self.kill(pid, number)

    def do_raise_signal(self, number, /):
        if self.serves:
            return self.signal(number)
        self.raise_signal(number)

    def signal(self, number):
        """Does with the request what the signal would do with its process."""
        handler = signal.getsignal(number) if number else signal.SIG_IGN
        if callable(handler):
            handler(number, sys._getframe())
        elif number in FATAL and (number == signal.SIGKILL or handler is signal.SIG_DFL):
            self.end(128 + int(number))


def keeps(kind, attribute, make):
    """Lets a request know the objects of a class that it makes; those of modules are theirs."""

    def keep(made, *_):
        request = current()
        if request is not None and request.loading is None:
            getattr(request, attribute).append(make(made))

    kind.__init__ = noted(kind.__init__, keep)


class NoSignals:
    """Handlers of signals are the requests' own."""

    def __init__(self, undo):
        pass


class SharedIsolation(Isolation):
    """What requests of one process have in common, and what each does at its end."""

    Modules, Exits, Signals, Ends = SharedModules, SharedExits, NoSignals, SharedEnds
    is_shared = True

    def of_request(self):
        request = current()
        if request is None:
            return 0
        return len(request.exits), request.moved, request.masked, dict(request.signals), dict(request.sys)

    def on_move(self, *_):
        request = current()
        if request is not None:
            request.moved = True

    def path_of(self, folder, environment):
        """Where the script in a directory looks for modules."""
        wanted = self.wanted_path(environment) if b"PYTHONPATH" in environment else ()
        return [*self.own(folder), *wanted, *self.path]

    def join_threads(self):
        request = current()
        for pool in request.pools:
            pool.shutdown()
        while request.threads:
            thread = request.threads.pop()
            if not thread.daemon and thread not in futures._threads_queues and thread is not threading.current_thread():
                thread.join()

    def finish(self):
        request = current()
        daemons = [t for t in request.threads if t.daemon]
        if request.threads or request.pools:
            limited(self.join_threads)
        request.threads = daemons
        if request.exits:
            limited(self.exits.run_exitfuncs)
        if request.finalizers:
            limited(self.run_finalizers, request)
        for reference in reversed(request.handlers):
            limited(self.close_handler, reference())

    def run_finalizers(self, request):
        for finalizer in reversed(request.finalizers):
            if finalizer.alive and finalizer.atexit:
                try:
                    finalizer()
                except Exception as e:
                    sys.excepthook(type(e), e, e.__traceback__)

    @staticmethod
    def close_handler(handler):
        if handler is None:
            return
        for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
            if isinstance(logger, logging.Logger) and handler in logger.handlers:
                logger.removeHandler(handler)
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

    def end_threads(self):
        """Threads are ended with the request that has started them."""
