"""Functions of the standard library that tell when they are called."""
import os
from itertools import count

from fcgi._fcgi import builtin

SUPPORTED = (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks)


def like(function, other):
    """Lets a function be known as another one, whose place it takes; gives what is to take it."""
    if type(other) is type(len):
        function = builtin(function, other)
    else:
        rename(function, other)
    for functions in SUPPORTED:
        if other in functions:
            functions.add(function)
    return function


def rename(function, other):
    function.__name__ = function.__qualname__ = other.__name__
    function.__doc__, function.__module__ = other.__doc__, other.__module__


def noted(function, note):
    """A function like another one, by name and documentation, that calls `note` with its arguments before it does as the
    other one does."""

    def telling(*arguments, **named):
        note(*arguments)
        return function(*arguments, **named)

    return like(telling, function)


class Counter:
    """Counts from a number on, in each request anew."""

    def __init__(self, start, undo):
        self.start, self.undo = start, undo
        self.leave()

    def leave(self):
        self.count = count(self.start).__next__

    def __call__(self):
        self.undo.add(self.leave)
        return self.count()

    __next__ = __call__


def tell(note, name, *modules):
    """Lets a function tell wherever it is known by its name: in its own module, and in those that have taken it over."""
    plain = getattr(modules[0], name)
    telling = noted(plain, note)
    for module in modules:
        if getattr(module, name, None) is plain:
            setattr(module, name, telling)
