"""Handlers of signals, and timers."""
import _signal
import signal

from fcgi import _fcgi
from fcgi._notes import like, tell

# Signals of timers.
TIMERS = {signal.ITIMER_REAL: signal.SIGALRM, signal.ITIMER_VIRTUAL: signal.SIGVTALRM, signal.ITIMER_PROF: signal.SIGPROF}
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
        # What ends the request when a timer does that nobody handles.
        self.ends, self.timer_ends = None, self.on_end
        self.get_signal = _signal.getsignal
        _signal.signal = like(self.do_signal, self.set_signal)
        _signal.getsignal = like(self.do_getsignal, self.get_signal)
        tell(self.on_alarm, "alarm", _signal, signal)
        tell(self.on_timer, "setitimer", _signal, signal)
        tell(self.on_mask, "pthread_sigmask", _signal)
        self.set_wakeup, self.wakeup = signal.set_wakeup_fd, -1
        tell(self.on_wakeup, "set_wakeup_fd", _signal, signal)

    def forks(self):
        """Keeps signals from a child until it is one."""
        self.mask_then = self.set_mask(signal.SIG_BLOCK, OURS)

    def has_forked(self):
        """The fork is over, in the parent."""
        self.set_mask(signal.SIG_SETMASK, self.mask_then)

    def forked(self):
        """Lets signals do what Python thinks that they do: the process's own handlers are not the child's."""
        for number in (*OURS, *(n for n in TIMERS.values() if self.get_signal(n) is self.timer_ends)):
            self.set_signal(number, _signal.getsignal(number))
        self.set_mask(signal.SIG_SETMASK, self.mask_then)

    def on_signal(self, number, *_):
        self.changed.add(int(number))
        self.undo.add(self.leave)

    def do_signal(self, signalnum, handler, /):
        self.on_signal(signalnum)
        if signalnum in TIMERS.values() and type(handler) is int and handler == _signal.SIG_DFL and self.ends.serves:
            handler = self.timer_ends
        return self.shown(self.set_signal(signalnum, handler))

    def do_getsignal(self, signalnum, /):
        return self.shown(self.get_signal(signalnum))

    def shown(self, handler):
        """A handler as scripts are to see it."""
        return _signal.SIG_DFL if handler is self.timer_ends else handler

    def is_unhandled(self, number):
        """Whether the script has left a signal to the system."""
        return self.saved.holds(number) or self.get_signal(number) is self.timer_ends

    def on_end(self, number, _):
        if self.ends.serves:
            self.ends.end(128 + number)

    def on_alarm(self, *_):
        self.on_timer(signal.ITIMER_REAL)

    def on_timer(self, which=None, *_):
        number = TIMERS.get(which)
        if number is not None and self.ends.serves and self.get_signal(number) == _signal.SIG_DFL:
            self.do_signal(number, _signal.SIG_DFL)
        self.timers = True
        self.undo.add(self.leave)

    def on_wakeup(self, *_):
        self.undo.add(self.leave_wakeup)

    def leave_wakeup(self):
        self.set_wakeup(self.wakeup)

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
