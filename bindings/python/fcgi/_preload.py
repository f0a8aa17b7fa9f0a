"""What a process loads that workers are forked from (`--preload`): the application, or what a script imports."""
import ast
import gc
import importlib
import sys
import warnings

from fcgi import _application


def preload(spec, script, is_asgi):
    """Loads the application that is named, or that a script is said to be; of other scripts what they import."""
    if spec is not None:
        app = _application.load(spec)
        is_asgi = is_asgi or _application.interface(app) == "asgi"
    if is_asgi:
        from fcgi import _asgi

        if spec is None and script is not None:
            _asgi.loaded[script] = _asgi.of_script(script)
    elif spec is None:
        import fcgi._script

        if script is not None:
            load_imports(script)
    gc.collect()
    # Workers that look at all objects would have copies of them.
    gc.freeze()


def load_imports(script):
    """Loads the modules that a script imports at its top, but for those of its own directory: they may look at the request."""
    try:
        with open(script, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return  # The script's first request says so.
    for name in names_in(tree):
        try:
            load(name)
        except Exception:
            pass  # As above.


def names_in(tree):
    """The modules that code imports which is not inside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from names_in(node)


def load(name):
    """Imports a module. Those that warn as they are loaded are to warn the request that imports them."""
    before = set(sys.modules)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        importlib.import_module(name)
    if given:
        for new in set(sys.modules) - before:
            del sys.modules[new]
