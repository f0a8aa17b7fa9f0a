"""Loops in programs that `python3` runs."""
import atexit
import os
import sys

from fcgi import _fcgi, _serve, _streams
from fcgi._ends import Ends
from fcgi._notes import like


def begin(is_server):
    """The program begins to take requests."""
    atexit.register(end)
    os.register_at_fork(after_in_child=_fcgi.forked)
    if is_server:
        # Told and done: what the program starts is not to look for sockets.
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        # The server stops, and so does the loop. A handler of the program's own is called then.
        _serve.no_interrupts().__enter__()
        if sys.version_info >= (3, 12):
            fork_quietly("fork")
            fork_quietly("forkpty")


def fork_quietly(name):
    """Lets a function of `os` fork without a warning of threads that are not the program's."""
    plain = getattr(os, name)

    def fork():
        return Ends.without_warning(plain)

    setattr(os, name, like(fork, plain))


def end():
    """The program ends."""
    _fcgi.end(hasattr(sys, "last_type"))


class Streams:
    """Lets one request after the other have the standard streams and the environment."""

    def __init__(self, stdio):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self.streams = _streams.Streams(stdio)
        self.environments = os.environ, os.environb
        self.has_begun = False
        os.register_at_fork(before=stdio.forks)
        sys.addaudithook(stdio.audit)

    def open(self, environment, has_body):
        for one in self.environments:
            one._data = environment
        if self.has_begun:
            self.streams.put_back()
            self.streams.forget()
        self.has_begun = True
        self.streams.open(environment, has_body)

    def close(self, status):
        if self.has_begun:
            self.streams.close(status)
