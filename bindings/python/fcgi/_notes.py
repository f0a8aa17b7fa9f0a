"""Functions of the standard library that tell when they are called."""


def noted(function, note):
    """A function like another one, by name and documentation, that calls `note` with its arguments before it does as the
    other one does."""

    def telling(*arguments, **named):
        note(*arguments)
        return function(*arguments, **named)

    telling.__name__ = telling.__qualname__ = function.__name__
    telling.__doc__ = function.__doc__
    return telling


def tell(note, name, *modules):
    """Lets a function tell wherever it is known by its name: in its own module, and in those that have taken it over."""
    plain = getattr(modules[0], name)
    telling = noted(plain, note)
    for module in modules:
        if getattr(module, name, None) is plain:
            setattr(module, name, telling)
