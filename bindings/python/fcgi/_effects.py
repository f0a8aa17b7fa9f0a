"""What the loading of a module changes beside the module itself: in `sys`, in the builtins, in other modules, in the process.

A module beside a script that changes something is loaded anew by each request, since what it has changed is put back: under CGI
each request has it from its own import. What a library changes is part of the library: it stays, as the library does.
"""
import _thread
import ast
import builtins
import sys
from contextvars import copy_context

modules = sys.modules
# Names of code that holds on to something of the request, or changes what shows nowhere.
OF_LOADING = frozenset("__main__ argv seed putenv unsetenv".split())
# Modules whose own functions change them.
CHANGING = frozenset(
    "tempfile gettext time locale threading warnings asyncio.events concurrent.futures.thread concurrent.futures.process".split()
)
# What modules of the library keep for themselves.
OWN = {"tempfile": "tempdir"}


class Loaded:
    """What is common to the loading of a module, whether others load beside it or not."""

    seen = None
    has_changed = False

    def look(self):
        """Takes note of how all is. What came before is the outer module's doing, what comes is this one's."""
        outer = self.outer
        if outer and outer.is_sibling and outer.seen and outer.seen.differs(frozenset()):
            outer.has_changed = True
        if self.owner.isolation and (self.is_sibling or outer is None or outer.is_sibling):
            self.seen = Seen(self.owner.isolation)

    def unlook(self, names, failed=False):
        """Gives whether a module beside the script, whose code uses these names, has changed something, or has something of the
        request; lets be so what a library has changed."""
        seen, self.seen = self.seen, None
        if seen is not None:
            if not self.is_sibling:
                seen.absorb()
            elif seen.differs(names) or not failed and holds(self.module) or names & OF_LOADING & used_as_it_loads(self.module):
                self.has_changed = True
            elif not failed:
                # A thread that waits for work is the module's, and stays as it does.
                seen.keep_threads()
            if self.outer and self.outer.seen:
                self.outer.seen = Seen(self.owner.isolation)
        return self.has_changed


class Seen:
    """How all was before a module was loaded."""

    def __init__(self, isolation):
        self.isolation = isolation
        self.sys, self.builtins = dict(sys.__dict__), dict(builtins.__dict__)
        self.lists = [(now, list(now)) for now in (sys.path, *(now for now, _ in isolation.lists))]
        # What puts things back that functions of the library have changed: those of the module are to be told apart.
        self.undo = set(isolation.undo)
        if not isolation.is_shared:
            isolation.undo.clear()
        self.own = isolation.of_request()
        self.count = _thread._count()
        self.threads = set(sys._current_frames()) if self.count else set()
        self.context = dict(copy_context())
        self.loggers = loggers()
        self.configured = configured()
        self.settings = isolation.modules.settings.now()
        self.dirty = self.changed_modules()

    def changed_modules(self):
        """Names of modules of the standard library that are not as they were."""
        return {name for name, snapshot in self.isolation.modules.snapshots.items() if snapshot.changes()}

    def over(self):
        """No more is the module's doing; gives whether functions of the library are to be undone for it."""
        undo = self.isolation.undo
        grown = bool(undo - self.undo) if self.isolation.is_shared else bool(undo)
        undo |= self.undo
        self.isolation.keep_loggers(loggers() - self.loggers)
        return grown

    def differs(self, names):
        """Whether the module, whose code uses these names, has changed something that is put back."""
        return (
            self.over()
            or not same(self.sys, sys.__dict__)
            or not same(self.builtins, builtins.__dict__)
            or any(now != before for now, before in self.lists)
            or self.isolation.of_request() != self.own
            or not same(self.context, dict(copy_context()))
            or configured() != self.configured
            or self.isolation.modules.settings.now() != self.settings
            or any(OWN.get(name) in names or name not in OWN for name in self.changed_modules() - self.dirty)
        )

    def keep_threads(self):
        """Threads that the module has started are not ended with the request."""
        if _thread._count() != self.count:
            self.isolation.threads |= set(sys._current_frames()) - self.threads

    def absorb(self):
        """Lets what a library has changed be as if it had always been so."""
        self.over()
        isolation = self.isolation
        for (now, before), known in zip(self.lists, (isolation.path, *(known for _, known in isolation.lists))):
            if now != before:
                add(known, now, before)
                isolation.paths.clear()
        for key, value in list(builtins.__dict__.items()):
            if self.builtins.get(key, self) is not value and key != "_":
                isolation.snapshots[1].keep(key, value)
        for name in self.changed_modules() - self.dirty:
            snapshot = isolation.modules.snapshots[name]
            for key in snapshot.changes():
                value = getattr(modules[name], key, None)
                if callable(value) or name not in CHANGING:
                    snapshot.keep(key, value)
        self.keep_threads()
        now = configured()
        isolation.configured.update((key, now[key]) for key in now if now[key] != self.configured.get(key))


def holds(module):
    """Whether a module has something, by a name of its own, that ends with the request."""
    futures = modules.get("concurrent.futures")
    return futures is not None and any(isinstance(value, futures.Executor) for value in module.__dict__.values())


def used_as_it_loads(module):
    """The names that a module's code uses outside of functions, and not only where it is a program."""
    try:
        left = [ast.parse(module.__spec__.loader.get_source(module.__spec__.name))]
    except (AttributeError, ImportError, SyntaxError, TypeError):
        return OF_LOADING
    names = set()
    while left:
        node = left.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            left += node.decorator_list if not isinstance(node, ast.Lambda) else ()
            continue
        if isinstance(node, ast.If) and "'__main__'" in ast.dump(node.test):
            left += node.orelse
            continue
        names |= {getattr(node, "attr", None), getattr(node, "module", None)}
        names |= {alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)}
        left += ast.iter_child_nodes(node)
    return names


def same(before, now):
    """Whether two dictionaries hold the very same."""
    return len(before) == len(now) and all(now.get(key, before) is value for key, value in before.items())


def add(known, now, before):
    """Adds to a list what has come to another one: before all others, or behind them."""
    there = set(map(id, before))
    first = True
    for at, entry in enumerate(now):
        if id(entry) in there:
            first = False
        elif entry not in known:
            known.insert(at if first else len(known), entry)


def loggers():
    """The names of the loggers that there are."""
    logging = modules.get("logging")
    return set(logging.root.manager.loggerDict) if logging else set()


def configured():
    """How loggers are that are not as they were made, by their names; of the whole module, by None."""
    logging = modules.get("logging")
    if logging is None:
        return {}
    found = {}
    for name, logger in [("", logging.root), *logging.root.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger):
            handlers = tuple(h for h in logger.handlers if not isinstance(h, logging.NullHandler))
            level = logger.level if name or logger.level != logging.WARNING else 0
            if handlers or level or logger.filters or not logger.propagate or logger.disabled:
                found[name] = (handlers, logger.level, tuple(logger.filters), logger.propagate, logger.disabled)
    return {**found, None: (dict(logging._levelToName), tuple(getattr(logging.Formatter, name, None) for name in FORMATTER))}


# Attributes of `logging.Formatter` that are set for all.
FORMATTER = ("converter", "default_time_format", "default_msec_format")
