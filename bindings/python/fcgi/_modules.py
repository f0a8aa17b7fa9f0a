"""What stays loaded, and what that means for the next request.

Modules stay. Those of the standard library are put back to how they were when they had been loaded. A module of the script's
own directory whose loading looked at the request, wrote something, or changed something outside itself would be another one
the next time: it is loaded anew. A module whose loading warned (as those do that are to leave the standard library) warns each time a request
imports it first.
"""
import os
import sys
import warnings
from importlib import _bootstrap, _bootstrap_external, machinery

from fcgi import _fcgi, _reload
from fcgi._effects import CHANGING, Loaded, configured
from fcgi._removed import REMOVED
from fcgi._settings import Settings

modules = sys.modules

# What these keep are caches, which are as good for the next request.
CACHES = frozenset(("mimetypes", "sysconfig", "_sysconfigdata", "platform", "uuid", "_strptime", "linecache"))
# Names that code uses which may change anything.
CHANGERS = frozenset(
    "setattr delattr __setattr__ __delattr__ __dict__ vars globals exec eval compile import_module __import__ modules runpy patch mock monkey"
    " freeze_time get_objects".split()
)
# Names that code uses which may change the builtins.
BUILTINS = CHANGERS | {"builtins", "__builtins__", "gettext", "install"}
# Variables of requests, by how they begin.
OF_REQUESTS = tuple(
    "HTTP REQUEST_ REMOTE_ SCRIPT_ SERVER_ PATH_ CONTENT_ CONTEXT_ QUERY_STRING GATEWAY_ DOCUMENT_ REDIRECT_ AUTH_ SSL_ UNIQUE_ID"
    " FCGI_".split()
)

# The frames of what runs here are left out of tracebacks, as those of the import system are.
EXEC_MODULE = """
def exec_module(self, module):
    begin = loading(module)
    try:
        _call_with_frames_removed(original, self, module)
    except BaseException:
        begin.failed()
        raise
    begin.done()
"""


class Watched(type(os.environ)):
    """The environment while a module is loaded that may look at the request."""

    looked = False

    def __getitem__(self, name):
        Watched.looked = Watched.looked or self.encodekey(name).decode("latin-1").startswith(OF_REQUESTS)
        return super().__getitem__(name)

    def __setitem__(self, name, value):
        Watched.looked = True
        super().__setitem__(name, value)

    def __delitem__(self, name):
        Watched.looked = True
        super().__delitem__(name)

    def __iter__(self):
        Watched.looked = True
        return super().__iter__()


class Loading(Loaded):
    """The loading of one module."""

    def __init__(self, owner, module):
        self.owner, self.module = owner, module
        self.outer, owner.current = owner.current, self
        self.warnings = []
        self.volatile = False
        origin = getattr(module.__spec__, "origin", None) or ""
        self.is_standard = owner.is_standard(origin, module.__name__)
        self.is_sibling = not self.is_standard and owner.folder is not None and owner.is_sibling(origin)
        if self.is_sibling:
            self.watch()
        if not self.is_standard:
            self.look()
        elif self.outer is None:
            self.warn, warnings.warn = warnings.warn, self.warned

    def watch(self):
        owner = self.owner
        if owner.watching == 0:
            Watched.looked = False
            owner.environment = os.environ.__class__
            os.environ.__class__ = Watched
            owner.streams = [s for s in (sys.stdout, sys.stderr, sys.stdin) if hasattr(s, "__dict__")]
            for stream in owner.streams:
                for name in ("write", "writelines", "read", "readline"):
                    self.watch_method(stream, name)
        owner.watching += 1
        self.looked, Watched.looked = Watched.looked, False

    def watch_method(self, stream, name):
        plain = getattr(stream, name)

        def method(*arguments):
            Watched.looked = True
            return plain(*arguments)

        stream.__dict__[name] = method

    def unwatch(self, failed):
        owner = self.owner
        code = None if failed else self.module.__spec__.loader.get_code(self.module.__spec__.name)
        names = names_of(code) if code else {"exec"}
        owner.beside.update(names)
        if self.unlook(names, failed):
            Watched.looked = True
        self.volatile = Watched.looked
        # Who loads it has looked at the request as well.
        Watched.looked = self.looked or self.volatile
        owner.watching -= 1
        if owner.watching == 0:
            os.environ.__class__ = owner.environment
            for stream in owner.streams:
                for name in ("write", "writelines", "read", "readline"):
                    stream.__dict__.pop(name, None)

    def warned(self, *arguments, **named):
        named = dict(named)
        level = named.pop("stacklevel", arguments[2] if len(arguments) > 2 else 1)
        # The one who imports the module is to blame, not this frame.
        self.warn(*arguments[:2], stacklevel=level + 1, **named)
        helper = sys._getframe(1).f_code.co_name == "_deprecated"
        self.warnings.append((arguments[:2], {"stacklevel": level - helper, **named}))

    def over(self, failed=False):
        self.owner.current = self.outer
        if self.is_sibling:
            self.unwatch(failed)
        elif not self.is_standard:
            self.unlook(frozenset())
        elif self.outer is None:
            warnings.warn = self.warn

    def failed(self):
        self.over(True)

    def done(self):
        self.over()
        name = self.module.__spec__.name
        if self.volatile:
            self.owner.volatile.append(name)
        elif self.is_standard and self.owner.known.get(name, self.module) is self.module:
            self.owner.learn(name, self.module)
            self.owner.learned.append(name)
            if self.warnings:
                self.owner.warning[name] = (self.module, self.module.__spec__, self.warnings)


def names_of(code):
    """All names that code uses."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            names |= names_of(constant)
    return names


class Uses:
    """What code can change, from the names that it uses."""

    def __init__(self, names):
        self.names = frozenset(names)
        self.builtins = bool(names & BUILTINS)
        self.everything = bool(names & CHANGERS)
        # The modules that this means, of so many that are known, and what puts settings back.
        self.chosen = (-1, [], [], [])
        self.more = self

    def with_names(self, names):
        """What this code and other code can change."""
        if not self.more.names.issuperset(names):
            self.more = Uses(self.names | names)
        return self.more


class Rewarning:
    """Gives a module that stays to the import system, with the warnings that its loading gave."""

    def __init__(self, warning):
        self.warning = warning

    def find_spec(self, name, path=None, target=None):
        return machinery.ModuleSpec(name, self) if name in self.warning else None

    def create_module(self, spec):
        return self.warning[spec.name][0]

    def exec_module(self, module):
        _, module.__spec__, given = self.warning[module.__spec__.name]
        for arguments, named in given:
            warnings.warn(*arguments, **named)


class Modules:
    """The modules of an interpreter."""

    def __init__(self):
        self.folder = self.isolation = None
        self.settings = Settings()
        self.current = None
        self.watching = 0
        self.volatile = []
        self.warning = {}
        sys.meta_path.insert(0, Rewarning(self.warning))
        self.standard = os.path.dirname(os.__file__) + os.sep
        self.snapshots = {}
        self.known = {}
        _reload.known.append(self.known)
        # Those that the request loaded: a script may want another copy of a module for itself.
        self.learned = []
        # Names that the code of modules beside scripts uses.
        self.beside = set()
        for name, module in list(modules.items()):
            if name != "__main__" and not name.startswith("fcgi"):
                self.learn(name, module)
        loader = _bootstrap_external._LoaderBasics
        names = {
            "loading": lambda module: self.loading(module),
            "original": loader.exec_module,
            "_call_with_frames_removed": _bootstrap._call_with_frames_removed,
        }
        exec(compile(EXEC_MODULE, "<frozen importlib._bootstrap_external>", "exec"), names)
        loader.exec_module = names["exec_module"]
        machinery.SourceFileLoader.exec_module = names["exec_module"]

    def loading(self, module):
        return Loading(self, module)

    def is_standard(self, origin, name):
        """Whether a module is of the standard library, or was once and has been installed: `cgi.test()` sets limits for all who
        come after."""
        if self.is_library(origin):
            return name.partition(".")[0] in REMOVED
        return origin.startswith(self.standard) or origin in ("built-in", "frozen")

    def is_sibling(self, origin):
        """Whether a file is one of the script's own modules: of its directory, or of another one that no package is installed
        into."""
        return origin.startswith(os.sep) and not self.is_library(origin)

    @staticmethod
    def is_library(origin):
        return "site-packages" in origin or "dist-packages" in origin

    def learn(self, name, module):
        """Remembers how a module of the standard library is."""
        self.known[name] = module
        self.settings.learn(name)
        if self.isolation:
            self.isolation.count_anew(name, module)
            if name == "logging":
                # The first script that has it may change it at once.
                self.isolation.configured.setdefault(None, configured()[None])
        spec = getattr(module, "__spec__", None)
        if type(spec) is machinery.ModuleSpec and not hasattr(spec, "_initializing"):
            # Those that were there before the import system lack it, which is found out each time that they are imported.
            spec._initializing = False
        if name.partition(".")[0] in CACHES or name in ("sys", "builtins") or not isinstance(module, type(sys)):
            return
        origin = getattr(spec, "origin", None) or ""
        if self.is_standard(origin, name):
            self.snapshots[name] = _fcgi.Snapshot(module.__dict__, {"__warningregistry__"})

    @staticmethod
    def forget(name):
        """Lets a module be imported as if for the first time."""
        modules.pop(name, None)
        package, _, last = name.rpartition(".")
        if package in modules:
            modules[package].__dict__.pop(last, None)

    def enter(self, folder):
        """A script runs whose modules lie in this directory."""
        self.folder = folder

    def leave(self, uses):
        """Forgets what is to be loaded anew, and looks after what has come. Gives the number of the modules of the standard
        library, the names and the snapshots of those that a script with such code can have changed, and what puts settings back."""
        if uses.everything or self.learned or self.volatile or self.warning or len(modules) != len(self.known) + 1:
            self.settle(uses)
        # What lies beside scripts is not the script, but is changed as often.
        uses = uses.with_names(self.beside)
        if uses.chosen[0] != len(self.snapshots):
            settings = self.settings.of(uses.names, uses.everything)
            uses.chosen = (len(self.snapshots), *self.choose(uses), settings)
        return uses.chosen

    def settle(self, uses):
        """Looks after the modules that have come, and those that are to go."""
        for name in self.learned:
            if modules.get(name) is not self.known.get(name):
                self.known.pop(name, None)
                self.snapshots.pop(name, None)
        self.learned.clear()
        if uses.everything:
            for name in _fcgi.others(modules, self.known):
                modules[name] = self.known[name]
        if len(modules) != len(self.known) + 1:
            for name in [name for name in modules if name not in self.known and name != "__main__"]:
                self.learn(name, modules[name])
        if self.volatile:
            for name in self.volatile:
                self.known.pop(name, None)
                self.forget(name)
            self.volatile.clear()
        for name in self.warning:
            self.known.pop(name, None)
            self.forget(name)

    def choose(self, uses):
        """The modules that code can have changed that uses these names: all, or those that it names itself, and those
        whose own functions change them."""
        names = uses.names
        if uses.everything:
            chosen = list(self.snapshots)
        else:
            chosen = [n for n in self.snapshots if n in CHANGING or names.intersection(n.split("."))]
            for name in list(chosen):
                for attribute, value in getattr(modules.get(name), "__dict__", {}).items():
                    if attribute in names and isinstance(value, type(sys)) and value.__name__ in self.snapshots:
                        chosen.append(value.__name__)
            chosen = list(dict.fromkeys(chosen))
        return chosen, [self.snapshots[name] for name in chosen]
