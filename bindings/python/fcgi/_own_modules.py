"""Modules of which each request has its own, where several run in one process: `__main__`, and modules beside the script whose
loading looks at the request or writes something. In `sys.modules` stands what shows each request its own."""
import sys
from importlib import _bootstrap
from importlib.util import module_from_spec

from fcgi._current import Module, answering, current, get_ident
from fcgi._effects import Loaded
from fcgi._modules import OF_REQUESTS, names_of

modules = sys.modules


class Shown(Module):
    """Stands for the module of the request that runs. Subclasses say which it is (`own`)."""

    def __getattribute__(self, name):
        module = type(self).own(self)
        return Module.__getattribute__(self, name) if module is self else getattr(module, name)

    def __setattr__(self, name, value):
        module = type(self).own(self)
        Module.__setattr__(self, name, value) if module is self else setattr(module, name, value)

    def __delattr__(self, name):
        module = type(self).own(self)
        Module.__delattr__(self, name) if module is self else delattr(module, name)

    def __dir__(self):
        module = type(self).own(self)
        return Module.__dir__(self) if module is self else dir(module)

    def __repr__(self):
        module = type(self).own(self)
        return Module.__repr__(self) if module is self else repr(module)


class Main(Shown):
    """`__main__`."""

    nobody = Module("__main__")

    @staticmethod
    def own(_):
        request = current()
        if request is None:
            return answering.get(get_ident(), (Main.nobody,))[0]
        return request.main or Main.nobody


# Those whose loading changes something: whoever imports them wants it to be so, and may ask for nothing else.
acting = set()
# What can be asked of a module that the request has not imported.
KNOWN = ("__name__", "__file__", "__path__", "__package__", "__loader__", "__cached__", "__doc__")


class Volatile(Shown):
    """A module whose loading looks at the request: each request that imports it loads its own."""

    def __getattribute__(self, name):
        # The import system asks for it; others look through all modules.
        module = Volatile.own(self, name == "__spec__")
        if module is self:
            return Module.__getattribute__(self, name)
        if module is not None:
            return getattr(module, name)
        names = Module.__getattribute__(self, "__dict__")
        if name in KNOWN and name in names:
            return names[name]
        if name == "__dict__":
            return {known: names[known] for known in KNOWN if known in names}
        raise AttributeError("module %r has no attribute %r" % (names["__name__"], name))

    @staticmethod
    def own(self, imports=True):
        """The request's own module, loaded if it imports it; `None` while it has none."""
        request = current()
        if request is None:
            return self
        module = request.modules.get(self, request)
        if module is request:
            # A package gives what lies inside of it without an import.
            module = None
            if not imports and "." not in Module.__getattribute__(self, "__name__"):
                return None
        return load(self, request) if module is None else module


def load(shown, request):
    """Loads a request's own module."""
    names = Module.__getattribute__(shown, "__dict__")
    spec = names["__spec__"]
    module = module_from_spec(spec)
    inner = spec.name + "."
    for name, child in list(modules.items()):
        if name.startswith(inner) and "." not in name[len(inner) :]:
            module.__dict__[name[len(inner) :]] = child
    request.modules[shown] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del request.modules[shown]
        raise
    return module


# Whoever imports a module that another request is just loading waits for it here, and is given what that request has loaded.
# (These frames, too, are left out of tracebacks.)
IMPORTS = """
def _find_and_load(name, import_):
    module = find_and_load(name, import_)
    imported(module)
    return module


def _lock_unlock_module(name):
    lock_unlock_module(name)
    imported(modules.get(name))
"""


def imported(module):
    """The request that runs has imported it: it gets its own when it asks for something of it."""
    if type(module) is Volatile:
        request = current()
        if request is not None and request.modules.setdefault(module, None) is None and module in acting:
            load(module, request)


def share_imports():
    """Lets imports tell which modules are the request's own."""
    names = {
        "find_and_load": _bootstrap._find_and_load,
        "lock_unlock_module": _bootstrap._lock_unlock_module,
        "imported": imported,
        "modules": modules,
    }
    exec(compile(IMPORTS, "<frozen importlib._bootstrap>", "exec"), names)
    for name in ("_find_and_load", "_lock_unlock_module"):
        setattr(_bootstrap, name, names[name])


class Loading(Loaded):
    """The loading of a module, by one thread of many."""

    def __init__(self, owner, module):
        self.owner, self.module = owner, module
        self.outer = None
        self.request = request = current()
        self.looked = self.is_sibling = False
        origin = getattr(module.__spec__, "origin", None) or ""
        self.is_standard = owner.is_standard(origin, module.__name__)
        if request is not None:
            self.outer, request.loading = request.loading, self
            self.is_sibling = not self.is_standard and owner.is_sibling(origin)
            if not self.is_standard:
                self.look()

    def reads(self, name):
        """A variable is looked at."""
        if name.startswith(OF_REQUESTS):
            self.looked = True

    def failed(self):
        """The module cannot be loaded."""
        if self.request is not None:
            self.unlook(frozenset(), True)
            self.request.loading = self.outer

    def done(self):
        """The module is loaded."""
        module, spec = self.module, self.module.__spec__
        if self.request is not None and not self.is_standard:
            code = spec.loader.get_code(spec.name) if self.is_sibling else None
            names = names_of(code) if code else {"exec"}
            if self.is_sibling:
                self.owner.used(names)
            if self.unlook(names):
                self.looked = True
        if self.looked and modules.get(spec.name) is module:
            self.request.modules[module] = module
            module.__class__ = Volatile
            if self.has_changed:
                acting.add(module)
        if self.request is not None:
            self.request.loading = self.outer
            if self.is_sibling:
                if self.looked and self.outer is not None:
                    # Who loads it has looked at the request as well.
                    self.outer.looked = True
                return
        # A script may want another copy of a module for itself.
        if self.is_standard and self.owner.known.get(spec.name, module) is module:
            self.owner.loaded(spec.name, module)
            self.owner.learn(spec.name, module)
            self.owner.learned.append(spec.name)
