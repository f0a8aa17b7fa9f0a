"""How a script ends itself, or replaces itself by another program: the request ends so, the process serves on."""
import _thread
import os
import signal
import sys
import warnings

from fcgi import _fcgi
from fcgi._notes import like

# What ends a process that does not care.
FATAL = frozenset(
    getattr(signal, name)
    for name in (
        "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM "
        "SIGTERM SIGSTKFLT SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGIO SIGPWR SIGSYS"
    ).split()
    if hasattr(signal, name)
)
ABORTED = 128 + int(signal.SIGABRT)


class Ended(BaseException):
    """The request has ended. Whatever a script does about it changes nothing: nobody hears of it."""


class Ends:
    """Replaces the functions that end or replace a process."""

    def __init__(self, script):
        self.script = script
        self.exit, self.abort, self.execv, self.execve = os._exit, os.abort, os.execv, os.execve
        self.kill, self.raise_signal = os.kill, signal.raise_signal
        for name in ("_exit", "abort", "execv", "execve", "kill"):
            self.replace(os, name)
        self.replace(signal, "raise_signal")
        if sys.version_info >= (3, 12):
            self.fork, self.forkpty = os.fork, os.forkpty
            self.replace(os, "fork")
            self.replace(os, "forkpty")

    def replace(self, module, name):
        function = getattr(self, "do" + name if name.startswith("_") else "do_" + name)

        def replacement(*arguments, **named):
            return function(*arguments, **named)

        replacement = like(replacement, getattr(module, name))
        setattr(module, name, replacement)
        for other in ("posix", "_signal"):
            if getattr(sys.modules.get(other), name, None) is getattr(self, name.lstrip("_"), None):
                setattr(sys.modules[other], name, replacement)

    @property
    def serves(self):
        """Whether this process runs a script for a request."""
        return self.script.serving and not _fcgi.is_forked()

    def end(self, status):
        """Ends the request as the process would have ended."""
        self.script.abandon(status)
        raise Ended

    def do_fork(self):
        return self.without_warning(self.fork)

    def do_forkpty(self):
        return self.without_warning(self.forkpty)

    @staticmethod
    def without_warning(fork):
        """Forks. That there are other threads is worth a warning only when they are the script's."""
        if _thread._count():
            return fork()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return fork()

    def do_exit(self, status):
        if not self.serves or not isinstance(status, int):
            self.exit(status)
        self.end(status & 0xFF)

    def do_abort(self):
        if not self.serves:
            self.abort()
        faulthandler = sys.modules.get("faulthandler")
        if faulthandler and faulthandler.is_enabled():
            os.write(2, b"Fatal Python error: Aborted\n\n" + self.where(faulthandler))
        self.end(ABORTED)

    def where(self, faulthandler):
        """The frames of all threads, but for those of this file."""
        with open(os.memfd_create("frames"), "w+b") as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            ours = os.fsencode('File "%s"' % Ends.where.__code__.co_filename)
            return b"".join(line for line in file if ours not in line)

    def do_kill(self, pid, number, /):
        if not (self.serves and pid == os.getpid() and self.signal(number)):
            self.kill(pid, number)

    def do_raise_signal(self, number, /):
        if not (self.serves and self.signal(number)):
            self.raise_signal(number)

    def signal(self, number):
        """Does with the request what the signal would do with its process; gives whether that is all."""
        if number not in FATAL or number != signal.SIGKILL and not self.script.isolation.signals.is_unhandled(number):
            return False
        handler = signal.getsignal(number)
        if handler is signal.default_int_handler:
            # The process's own handler is in its place.
            _thread.interrupt_main()
            return True
        if number == signal.SIGKILL or handler is signal.SIG_DFL:
            self.end(128 + int(number))
        return False

    def do_execv(self, path, argv, /):
        if not self.serves:
            self.execv(path, argv)
        self.replace_process(self.execv, path, argv)

    def do_execve(self, path, argv, env):
        if not self.serves:
            self.execve(path, argv, env)
        self.replace_process(self.execve, path, argv, env)

    def replace_process(self, function, *arguments):
        """Runs the other program in a child. An error is the caller's, as ever."""
        sys.audit("os.exec", *(arguments if len(arguments) == 3 else (*arguments, None)))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                function(*arguments)
            except OSError as e:
                os.write(write, b"%d" % e.errno)
            except BaseException:
                os.write(write, b"0")
            finally:
                self.exit(127)
        os.close(write)
        with open(read, "rb") as pipe:
            number = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if number == b"0":
            # The arguments were wrong: the function says how.
            function(*arguments)
        if number:
            named = arguments[:1] if function == self.execve else ()
            raise OSError(int(number), os.strerror(int(number)), *named)
        self.end(status & 0xFF if status >= 0 else 128 - status)
