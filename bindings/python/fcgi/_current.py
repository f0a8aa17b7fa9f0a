"""Which request a thread works for, where several run in one process; and what `sys` and `os.environ` show to it.

A request belongs to the thread that runs its script and to those that the script starts. What code finds in `sys.stdout`,
`sys.argv`, `os.environ` is then not the process's but the request's.
"""
import _thread
import os
import sys
import threading

from fcgi._notes import like

get_ident = _thread.get_ident
Module = type(sys)
# By thread.
running = {}
# Module and environment of the applications of scripts that answer, by thread.
answering = {}
STREAMS = ("stdin", "stdout", "stderr")


class Request:
    """What belongs to one request."""

    def __init__(self, script, environment, channel):
        self.script, self.channel = script, channel
        self.environment = environment
        # The environment of children, once it is another one than Python's.
        self.block = None
        self.streams = [None, None, None]
        # Attributes of `sys` that are not as in the process.
        self.sys = {}
        self.main = None
        self.prefix = ""
        self.loading = None
        # Modules that each request has for itself, by what stands for them.
        self.modules = {}
        self.exits, self.threads, self.finalizers, self.handlers, self.pools = [], [], [], [], []
        self.signals = {}
        self.mask = None
        # It has left its directory, or set its umask; it has blocked signals.
        self.moved = self.masked = False

    def child_environment(self):
        return self.environment if self.block is None else self.block


def current():
    """The request that the calling thread works for, if any."""
    return running.get(get_ident())


class Bound:
    """A function that works for a request, whichever thread calls it."""

    def __init__(self, function, request):
        self.function, self.request = function, request

    def __call__(self, *arguments, **named):
        thread = get_ident()
        before = running.get(thread)
        running[thread] = self.request
        try:
            return self.function(*arguments, **named)
        finally:
            if before is None:
                del running[thread]
            else:
                running[thread] = before

    def __repr__(self):
        return repr(self.function)


def inherit_request():
    """Lets threads work for the request that starts them; those that a module starts as it is loaded are the module's."""
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        plain = getattr(_thread, name, None)
        if plain is None:
            continue

        def start(function, *arguments, _plain=plain, **named):
            request = current()
            if request is not None and request.loading is None and callable(function):
                thread = getattr(function, "__self__", None)
                if isinstance(thread, threading.Thread):
                    request.threads.append(thread)
                function = Bound(function, request)
            return _plain(function, *arguments, **named)

        setattr(_thread, name, like(start, plain))
        if getattr(threading, "_" + name, None) is plain:
            setattr(threading, "_" + name, start)


# -------------------------------------------------------------------- streams


class Delegate:
    """Stands for an object of the request that runs; and is, for all that one can ask, that object."""

    __slots__ = ()

    def __getattr__(self, name):
        return getattr(self._object(), name)

    def __setattr__(self, name, value):
        setattr(self._object(), name, value)

    def __delattr__(self, name):
        delattr(self._object(), name)

    @property
    def __class__(self):
        return type(self._object())

    def __dir__(self):
        return dir(self._object())

    def __repr__(self):
        return repr(self._object())

    def __iter__(self):
        return iter(self._object())

    def __next__(self):
        return next(self._object())

    def __enter__(self):
        self._object().__enter__()
        return self

    def __exit__(self, *exception):
        return self._object().__exit__(*exception)


class Stream(Delegate):
    """A standard stream of the request that runs."""

    __slots__ = ("_number", "_process", "_bytes")

    def __init__(self, number, process):
        for name, value in (("_number", number), ("_process", process), ("_bytes", Buffer(self))):
            object.__setattr__(self, name, value)

    def _object(self):
        request = running.get(get_ident())
        if request is None:
            return self._process
        if request.loading is not None and self._number == 0:
            request.loading.looked = True
        return request.streams[self._number]

    def write(self, text):
        request = running.get(get_ident())
        if request is None:
            return self._process.write(text)
        if request.loading is not None:
            request.loading.looked = True
        return request.streams[self._number].write(text)

    def writelines(self, lines):
        self._object().writelines(lines)

    @property
    def buffer(self):
        self._object().buffer
        return self._bytes


class Buffer(Delegate):
    """What lies below a standard stream of the request that runs."""

    __slots__ = ("_stream",)

    def __init__(self, stream):
        object.__setattr__(self, "_stream", stream)

    def _object(self):
        return self._stream._object().buffer

    def write(self, data):
        request = running.get(get_ident())
        if request is not None and request.loading is not None:
            request.loading.looked = True
        return self._object().write(data)


class Replaceable(Delegate):
    """What the interpreter itself takes for `sys.stdout`: the stream, or what the script has put in its place."""

    __slots__ = ("_name", "_stream")

    def __init__(self, name, stream):
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_stream", stream)

    def _object(self):
        request = running.get(get_ident())
        found = self._stream if request is None else request.sys.get(self._name, self._stream)
        if found is MISSING:
            raise RuntimeError("lost sys.%s" % self._name)
        return found

    def write(self, text):
        found = self._object()
        return len(text) if found is None else found.write(text)

    def flush(self):
        found = self._object()
        if found is not None:
            found.flush()


class Missing:
    """The value of what a request has deleted."""


MISSING = Missing()


# -------------------------------------------------------------------- sys


class AnyModule(type):
    """For those who ask with `type(sys)` whether something is a module."""

    def __instancecheck__(cls, instance):
        return isinstance(instance, Module)


class Sys(Module, metaclass=AnyModule):
    """The module `sys`, of which some attributes are the request's."""

    def __new__(cls, *arguments, **named):
        # The import system makes modules of the type of `sys`.
        return Module(*arguments, **named)

    def __getattr__(self, name):
        # That there is this method keeps the interpreter from remembering where attributes lie.
        raise AttributeError("module 'sys' has no attribute %r" % name)


def own_attribute(name, shown):
    """An attribute of `sys` of which each request has its own; `shown` is what it begins as."""

    def get(self):
        request = running.get(get_ident())
        value = shown if request is None else request.sys.get(name, shown)
        if value is MISSING:
            raise AttributeError("module 'sys' has no attribute %r" % name)
        return value

    def put(self, value):
        nonlocal shown
        request = running.get(get_ident())
        if request is None:
            shown = value
        else:
            request.sys[name] = value

    def delete(self):
        put(self, MISSING)

    return property(get, put, delete)


def called_by_interpreter(name):
    """A hook that the interpreter finds in the place of the process's."""

    def hook(*arguments):
        return getattr(sys, name)(*arguments)

    return hook


def share_sys():
    """Gives each request its own streams, arguments, search path and hooks; gives the process's streams."""
    process = [sys.__dict__["__%s__" % name] or open(os.devnull, "r+" if name == "stdin" else "w") for name in STREAMS]
    for number, name in enumerate(STREAMS):
        stream = Stream(number, process[number])
        setattr(Sys, name, own_attribute(name, stream))
        setattr(Sys, "__%s__" % name, own_attribute("__%s__" % name, stream))
        sys.__dict__[name], sys.__dict__["__%s__" % name] = Replaceable(name, stream), stream
    for name in ("excepthook", "unraisablehook", "displayhook", "breakpointhook"):
        setattr(Sys, name, own_attribute(name, sys.__dict__[name]))
        sys.__dict__[name] = called_by_interpreter(name)
    for name in ("argv", "path"):
        setattr(Sys, name, own_attribute(name, sys.__dict__[name]))
    for name in ("last_type", "last_value", "last_traceback", "last_exc", "ps1", "ps2"):
        setattr(Sys, name, own_attribute(name, MISSING))
    sys.__class__ = Sys
    return process


# -------------------------------------------------------------------- the environment


def share_environment():
    """Gives each request its own `os.environ`. That of the C library stays the process's."""
    process = os.environ._data

    class Environment(type(os.environ)):
        @property
        def _data(self):
            request = running.get(get_ident())
            if request is None:
                return answering.get(get_ident(), (None, process))[1]
            return request.environment

        @_data.setter
        def _data(self, data):
            request = current()
            if request is not None:
                request.environment, request.block = data, None

        def __getitem__(self, name):
            request = running.get(get_ident())
            if request is not None and request.loading is not None:
                request.loading.reads(self.encodekey(name).decode("latin-1"))
            return super().__getitem__(name)

        def __setitem__(self, name, value):
            note_change()
            super().__setitem__(name, value)

        def __delitem__(self, name):
            note_change()
            super().__delitem__(name)

        def __iter__(self):
            request = running.get(get_ident())
            if request is not None and request.loading is not None:
                request.loading.looked = True
            return super().__iter__()

    def note_change():
        request = running.get(get_ident())
        if request is not None and request.loading is not None:
            request.loading.looked = True

    Environment.__name__ = Environment.__qualname__ = "_Environ"
    for one in (os.environ, os.environb):
        one.__class__ = Environment

    def putenv(name, value, /):
        request = current()
        if request is None:
            return plain_putenv(name, value)
        sys.audit("os.putenv", name, value)
        if request.block is None:
            request.block = dict(request.environment)
        request.block[os.fsencode(name)] = os.fsencode(value)

    def unsetenv(name, /):
        request = current()
        if request is None:
            return plain_unsetenv(name)
        sys.audit("os.unsetenv", name)
        if request.block is None:
            request.block = dict(request.environment)
        request.block.pop(os.fsencode(name), None)

    plain_putenv, plain_unsetenv = os.putenv, os.unsetenv
    os.putenv, os.unsetenv = like(putenv, plain_putenv), like(unsetenv, plain_unsetenv)
    return plain_putenv, plain_unsetenv
