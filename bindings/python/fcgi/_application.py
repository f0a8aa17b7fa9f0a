"""Finds applications: the one that the command line names, and those that scripts turn out to be."""
import _thread
import ast
import importlib
import inspect
import os
import sys

from fcgi import _reload

NAMES = ("application", "app")
# What `--app` calls the application that is no module's (`fcgi.serve`).
GIVEN = ":given:"
_loaded = {}
_generations = {}
renewing = _thread.allocate_lock()


class NotFound(ImportError):
    """There is no such application; the text says all."""


def load(spec):
    """The application of `package.module:attribute`, `package.module:factory()` or `package.module`."""
    if spec not in _loaded:
        directory = os.getcwd()
        if directory not in sys.path:
            sys.path.insert(0, directory)
        name, _, attribute = spec.partition(":")
        module = importlib.import_module(name)
        _loaded[spec] = find(module, attribute) if attribute else one_of(module)
        _reload.of_module(module)
    return _loaded[spec]


def load_anew(spec, generation):
    """As `load`, once modules have changed: they are of this generation. Threads have one application."""
    with renewing:
        if _generations.get(spec) != generation:
            _loaded.pop(spec, None)
            _generations[spec] = generation
        return load(spec)


def find(module, attribute):
    """What an attribute of a module is; with `()` behind it, what it gives when it is called."""
    is_factory = attribute.endswith("()")
    found = module
    for part in attribute[:-2].split(".") if is_factory else attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise NotFound("the module %r has no %r (--app MODULE:NAME)" % (module.__name__, part)) from None
    found = found() if is_factory else found
    if not callable(found):
        raise NotFound("%s:%s is not callable (--app)" % (module.__name__, attribute))
    return found


def one_of(module):
    for name in NAMES:
        if callable(getattr(module, name, None)):
            return getattr(module, name)
    raise NotFound("the module %r has neither 'application' nor 'app': write --app MODULE:NAME" % module.__name__)


def interface(application):
    """`"wsgi"` or `"asgi"`, by what the callable is; `None` when it is neither."""
    call = application if inspect.isroutine(application) or inspect.isclass(application) else type(application).__call__
    if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call):
        return "asgi"
    try:
        signature = inspect.signature(application)
        signature.bind(None, None)
    except TypeError:
        # A plain function may give what another one awaits.
        return "asgi" if tuple(signature.parameters) == ("scope", "receive", "send") else None
    except ValueError:
        pass
    return "wsgi"


def of_script(names):
    """The application among a script's globals, and its interface; `None` when there is none."""
    for name in NAMES:
        found = names.get(name)
        if callable(found) and (not inspect.isclass(found) or is_iterable_of_its_own(found)):
            kind = interface(found)
            if kind:
                return found, kind
    return None


def is_iterable_of_its_own(kind):
    """Whether a class is one whose objects are answers (PEP 3333, "The Application/Framework Side")."""
    return inspect.isfunction(kind.__init__) and inspect.isfunction(getattr(kind, "__iter__", None))


def split(source, path):
    """Compiles a script; in two parts if it may be an application: up to its `if __name__ == "__main__":`, and the rest."""
    if b"app" not in source and b"import *" not in source:
        return compile(source, path, "exec", dont_inherit=True), None
    tree = compile(source, path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    if not any(map(binds, tree.body)) or any(map(calls, tree.body)):
        return compile(source, path, "exec", dont_inherit=True), None
    at = next((at for at, statement in enumerate(tree.body) if is_guard(statement)), len(tree.body))
    rest = ast.Module(tree.body[at:], [])
    future = [s for s in tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    first = ast.Module(tree.body[:at], [])
    rest.body[:0] = future if rest.body else []
    parts = [compile(part, path, "exec", dont_inherit=True) for part in (first, rest)]
    return parts[0], parts[1]


def binds(statement):
    """Whether a statement gives something one of the names of applications."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name in NAMES
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name) in (*NAMES, "*") for alias in statement.names)
    if isinstance(statement, ast.Name):
        return isinstance(statement.ctx, ast.Store) and statement.id in NAMES
    return any(map(binds, ast.iter_child_nodes(statement)))


def calls(statement):
    """Whether a statement that runs with the script calls something of such a name: an application is called by a server. What
    makes one may have the name, too."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return False
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and binds(statement):
        return False
    if isinstance(statement, ast.Call) and isinstance(statement.func, ast.Name) and statement.func.id in NAMES:
        return True
    return any(map(calls, ast.iter_child_nodes(statement)))


def is_guard(statement):
    """Whether a statement is `if __name__ == "__main__":`."""
    if not isinstance(statement, ast.If) or not isinstance(statement.test, ast.Compare):
        return False
    sides = [statement.test.left, *statement.test.comparators]
    return any(isinstance(s, ast.Name) and s.id == "__name__" for s in sides)
