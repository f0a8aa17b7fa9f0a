"""Finds out what scripts leave behind (`--audit`): modules and the process are compared before and after each request."""
import ast
import gc
import os
import sys

from fcgi import _fcgi
from fcgi._script import Script

modules = sys.modules
# Of `sys`, what each request has of its own.
OF_REQUESTS = frozenset(
    "stdin stdout stderr __stdin__ __stdout__ __stderr__ argv last_type last_value last_traceback last_exc ps1 ps2".split()
)
# Each request begins with these anew.
BEGUN_ANEW = frozenset(("the search path", "the working directory"))
CONTAINERS = (dict, list, set)


class Audited(Script):
    """Runs scripts, and says what they have changed."""

    is_audited = True

    def __init__(self, arguments, stdio):
        self.before, self.lines = None, {}
        super().__init__(arguments, stdio)

    def begin(self, path, environment, has_body):
        begun = super().begin(path, environment, has_body)
        self.before = self.look() if _fcgi.is_audited() else None
        return begun

    def forget(self, status):
        before, self.before = self.before, None
        changed = self.compare(before, self.look()) if before else {}
        status = super().forget(status)
        if changed:
            stays = self.compare(before, self.look())
            where = self.places()
            for key, what in changed.items():
                place = where.get(key.rpartition(".")[2])
                _fcgi.audited(what + (" (line %d)" % place if place else ""), key in stays and key not in BEGUN_ANEW)
        return status

    def look(self):
        """What there is, by names."""
        seen = {}
        for name, module in list(modules.items()):
            if name == "__main__" or name.partition(".")[0] == "fcgi" or not isinstance(module, type(sys)):
                continue
            origin = getattr(getattr(module, "__spec__", None), "origin", None) or "built-in"
            own = not self.isolation.modules.is_standard(origin, name)
            names = {}
            for key, value in list(vars(module).items()):
                if not isinstance(key, str) or key.startswith("__") or name == "sys" and key in OF_REQUESTS:
                    continue
                # What modules of the library keep for themselves says nothing of the script.
                names[key] = value, len(value) if own and isinstance(value, CONTAINERS) else None
            seen[name] = module, own, names
        return seen, self.process()

    @staticmethod
    def process():
        import _signal

        facts = {
            "the search path": list(sys.path),
            "the working directory": _fcgi.current_directory(),
            "the umask": _fcgi.umask(),
            "the locale": _fcgi.locale(),
            "the recursion limit": sys.getrecursionlimit(),
            "the collector's settings": (gc.isenabled(), gc.get_threshold()),
            "the trace function": sys.gettrace(),
        }
        for number in range(1, _signal.NSIG):
            try:
                handler = _signal.getsignal(number)
            except ValueError:
                continue
            facts["the handler of signal %d" % number] = handler
        return facts

    def compare(self, before, after):
        """What differs: texts, by what tells one from another."""
        found = {}
        for name, (module, own, names) in before[0].items():
            now = after[0].get(name)
            if now is None:
                # Modules that are to be loaded anew are dropped by us.
                continue
            if now[0] is not module:
                found[name] = "the module %s was replaced" % name
                continue
            self.compare_module(found, name, own, names, now[2])
        for what, value in before[1].items():
            if after[1].get(what) != value:
                found[what] = "%s was changed" % what
        return found

    @staticmethod
    def compare_module(found, name, own, before, after):
        for key, (value, length) in before.items():
            full = "%s.%s" % (name, key)
            if key not in after:
                found[full] = "%s was deleted" % full
                continue
            now, length_now = after[key]
            if now is not value and (own or not key.startswith("_")):
                found[full] = "%s was changed%s" % (full, made_at(now))
            elif length != length_now:
                found[full] = "%s has %d entries instead of %d" % (full, length_now, length)
        for key in after.keys() - before.keys():
            if not isinstance(after[key][0], type(sys)):
                full = "%s.%s" % (name, key)
                found[full] = "%s is new%s" % (full, made_at(after[key][0]))

    def places(self):
        """The lines of the script that set an attribute, by its name."""
        path = self.turn.path
        if path not in self.lines:
            self.lines[path] = lines_of(path)
        return self.lines[path]


def made_at(value):
    """Where a function was made."""
    code = getattr(value, "__code__", None)
    return ", a function of %s:%d" % (code.co_filename, code.co_firstlineno) if code else ""


def lines_of(path):
    """For each attribute that a script sets, the first line that does so."""
    lines = {}
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return lines
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            name = node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr") and len(node.args) > 1:
            name = getattr(node.args[1], "value", None)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Attribute):
            name = node.func.value.attr
        if isinstance(name, str):
            lines[name] = min(node.lineno, lines.get(name, node.lineno))
    return lines
