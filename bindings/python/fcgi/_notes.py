"""Functions of the standard library that tell when they are called."""
import os

SUPPORTED = (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks)


def like(function, other):
    """Lets a function be known as another one, whose place it takes."""
    function.__name__ = function.__qualname__ = other.__name__
    function.__doc__, function.__module__ = other.__doc__, other.__module__
    for functions in SUPPORTED:
        if other in functions:
            functions.add(function)
    return function


def noted(function, note):
    """A function like another one, by name and documentation, that calls `note` with its arguments before it does as the
    other one does."""

    def telling(*arguments, **named):
        note(*arguments)
        return function(*arguments, **named)

    return like(telling, function)


def tell(note, name, *modules):
    """Lets a function tell wherever it is known by its name: in its own module, and in those that have taken it over."""
    plain = getattr(modules[0], name)
    telling = noted(plain, note)
    for module in modules:
        if getattr(module, name, None) is plain:
            setattr(module, name, telling)
