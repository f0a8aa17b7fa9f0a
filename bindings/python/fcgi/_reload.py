"""Modules that lie beside a script or an application, or below, are loaded anew when their files change (`--reload`).

A file is looked at as it is when its module is loaded, and again once a second at most, when a request comes. When one of
them has changed, all modules of that directory are forgotten: they may hold parts of each other. Extension modules and
installed packages stay.
"""
import _thread
import os
import sys
from importlib import machinery
from time import monotonic

# How long what is known of files is believed, in seconds.
BELIEVED = 1.0

modules = sys.modules
lock = _thread.allocate_lock()
# Those of Python's own library and of this package stay, wherever they lie.
STAY = tuple(os.path.join(os.path.dirname(file), "") for file in (os.__file__, globals().get("__file__")) if file)
# Files of modules, as they were when they were loaded.
files = {}
# Those that have changed since.
changed = set()
# Directories that are looked at, and when that is to be done next.
roots = {}
# The directories of scripts.
folders = {}
# Further places in which modules are known by name.
known = []
# How often modules have been forgotten.
generation = 1


def start():
    """Notes from now on what is loaded."""
    loader = machinery.SourceFileLoader
    plain = loader.path_stats

    def path_stats(self, path):
        # Before the file is read: a change in between is seen.
        watch(path)
        if path in changed:
            # Compiled code tells versions of a file by seconds and size only: without times there is none.
            raise OSError
        return plain(self, path)

    loader.path_stats = path_stats


def watch(path):
    """Notes how a file is."""
    files[path] = version(path)


def version(path):
    """What tells one version of a file from another; `None` when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def of_module(module):
    """Looks from now on at the directory that a module's package was found in."""
    module = modules[module.__name__.partition(".")[0]]
    places = [os.path.abspath(place) for place in getattr(module, "__path__", ())]
    if not places and hasattr(module, "__file__"):
        roots.setdefault(os.path.join(os.path.dirname(os.path.abspath(module.__file__)), ""), 0)
    for place in places:
        # Beside one that is installed lie others.
        roots.setdefault(os.path.join(place if is_library(place) else os.path.dirname(place), ""), 0)


def is_library(path):
    return "site-packages" in path or "dist-packages" in path


def of_script(path):
    """Which generation of modules a script runs with; they have been looked at."""
    root = folders.get(path)
    if root is None:
        root = folders[path] = os.path.join(os.path.dirname(os.path.realpath(path)), "")
        roots.setdefault(root, 0)
    return look((root,))


def of_application():
    """Which generation of modules applications of the command line have; they have been looked at."""
    return look(list(roots))


def look(where):
    global generation
    now = monotonic()
    for root in where:
        if now < roots[root]:
            continue
        with lock:
            # A thread that came first may have looked.
            if now < roots[root]:
                continue
            roots[root] = now + BELIEVED
            own = [path for path in list(files) if path.startswith(root) and not path.startswith(STAY) and not is_library(path[len(root) :])]
            new = [path for path in own if files[path] != version(path)]
            if new:
                changed.update(new)
                forget(own)
                generation += 1
    return generation


def forget(own):
    """Lets the modules of these files be imported as if for the first time."""
    for path in own:
        del files[path]
    own = set(own)
    for name, module in list(modules.items()):
        spec = getattr(module, "__spec__", None)
        if name == "__main__" or getattr(spec, "origin", None) not in own:
            continue
        modules.pop(name, None)
        package, _, last = name.rpartition(".")
        vars(modules.get(package, module)).pop(last, None)
        for names in known:
            names.pop(name, None)
