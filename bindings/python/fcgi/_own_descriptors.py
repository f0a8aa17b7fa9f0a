"""Descriptors 0, 1 and 2 of requests that share a process: functions of the library that are given one of these numbers use what
the request has in their place, and child processes get it under that number."""
import _posixsubprocess
import builtins
import io
import os
import re
import subprocess
import sys

from fcgi._current import current
from fcgi._notes import like

# By their first argument.
FUNCTIONS = (
    "write writev read readv dup fstat isatty lseek get_blocking set_blocking get_inheritable set_inheritable ttyname fsync "
    "ftruncate fpathconf fstatvfs"
).split()
BY_NAME = re.compile(r"/dev/(?:std(in|out|err)|fd/([012]))")
NAMES = {"in": 0, "out": 1, "err": 2}


def own(number):
    """What the request has in place of a descriptor."""
    if number.__class__ is int and 0 <= number <= 2:
        request = current()
        if request is not None:
            return request.channel.fileno(number)
    return number


def replace(name, make, *modules):
    """Replaces a function wherever it is known by its name."""
    plain = getattr(modules[0], name, None)
    if plain is None:
        return
    function = like(make(plain), plain)
    for module in modules:
        if getattr(module, name, None) is plain:
            setattr(module, name, function)


def by_first_argument(plain):
    def function(fd, *arguments, **named):
        return plain(own(fd), *arguments, **named)

    return function


def make_dup2(plain):
    def dup2(fd, fd2, inheritable=True):
        request = current()
        if request is None:
            return plain(fd, fd2, inheritable)
        there = own(fd2)
        if there == fd2 and request.channel.stands_for(fd2) is None:
            return plain(own(fd), fd2, inheritable)
        # Children get it by another way; one that inherited it would keep the answer from ending.
        plain(own(fd), there, there <= 2)
        request.channel.replaced(there)
        return fd2

    return dup2


def make_close(plain):
    def close(fd):
        request = current()
        if request is not None and fd.__class__ is int:
            there = own(fd)
            if there > 2 and request.channel.stands_for(there) is not None:
                # The number stays ours.
                nothing = os.open(os.devnull, os.O_RDWR)
                try:
                    os.dup2(nothing, there, False)
                finally:
                    plain(nothing)
                return
        plain(fd)

    return close


def make_open(plain):
    def open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        request = current()
        if request is not None:
            if file.__class__ is int:
                there = own(file)
                if there != file or request.channel.stands_for(file) is not None:
                    file = os.dup(there) if closefd else there
            elif file.__class__ is str:
                named = BY_NAME.fullmatch(file)
                if named:
                    number = NAMES[named[1]] if named[1] else int(named[2])
                    file = "/dev/fd/%d" % own(number)
        return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)

    return open


def standard(request, number, of):
    """What a child is to get as a descriptor, for what it was given."""
    return request.channel.fileno(of if number == -1 else number) if -1 <= number <= 2 else number


def make_fork_exec(plain):
    def fork_exec(*arguments):
        request = current()
        if request is not None:
            arguments = list(arguments)
            request.channel.children()
            if arguments[5] is None:
                arguments[5] = [name + b"=" + value for name, value in request.child_environment().items()]
            for of, at in ((0, 6), (1, 9), (2, 11)):
                arguments[at] = standard(request, arguments[at], of)
        return plain(*arguments)

    return fork_exec


def make_posix_spawn(plain):
    def posix_spawn(path, argv, env, *, file_actions=(), **named):
        request = current()
        if request is not None:
            request.channel.children()
            channel = request.channel
            if env is None or env is os.environ:
                env = request.child_environment()
            file_actions = [*((os.POSIX_SPAWN_DUP2, channel.fileno(n), n) for n in range(3)), *(file_actions or ())]
        return plain(path, argv, env, file_actions=file_actions, **named)

    return posix_spawn


def make_system(plain):
    def system(command):
        request = current()
        if request is None:
            return plain(command)
        command = os.fsencode(command)
        sys.audit("os.system", command)
        child = os.posix_spawn("/bin/sh", ["sh", "-c", command], request.child_environment())
        return os.waitpid(child, 0)[1]

    return system


def share_descriptors():
    """Lets the library's functions use the descriptors of requests."""
    posix = sys.modules["posix"]
    for name in FUNCTIONS:
        replace(name, by_first_argument, os, posix)
    replace("dup2", make_dup2, os, posix)
    replace("close", make_close, os, posix)
    replace("open", make_open, builtins, io)
    for name in ("posix_spawn", "posix_spawnp"):
        replace(name, make_posix_spawn, os, posix)
    replace("system", make_system, os, posix)
    replace("fork_exec", make_fork_exec, _posixsubprocess)
    if hasattr(subprocess, "_fork_exec"):
        subprocess._fork_exec = _posixsubprocess.fork_exec
