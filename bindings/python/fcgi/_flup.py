"""What `--flup` gives to scripts: the modules of flup that serve FastCGI, which need not be installed."""
import importlib.machinery
import sys

if __name__ == "__main__":
    # `python3` runs this file by its path, with the command line of a script behind it. Where it lies there are no modules
    # for scripts.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]
    directory = __file__.rpartition("/")[0].rpartition("/")[0]
    sys.path.insert(0, directory)
    from fcgi import _flup

    sys.path.remove(directory)
    _flup.run(sys.argv[1:])
    sys.exit()

from fcgi import flup


class Single(flup.WSGIServer):
    """As flup's: one request at a time."""

    _pool = ()

    def __init__(
        self,
        application,
        environ=None,
        bindAddress=None,
        umask=None,
        multiplexed=False,
        debug=False,
        roles=(flup.FCGI_RESPONDER,),
        forceCGI=False,
        multithreaded=False,
        multiprocess=False,
        **others
    ):
        super().__init__(application, environ, False, False, bindAddress, umask, multiplexed, debug, roles, forceCGI, **others)


class Fork(Single):
    """flup's has many processes; this one is one of those that `--workers` or a web server starts."""

    _pool = ("minSpare", "maxSpare", "maxChildren", "maxRequests", "sockTimeout")

    def __init__(self, *arguments, timeout=None, **named):
        super().__init__(*arguments, **named)
        self.multiprocess = True
        if timeout:
            self._vain.append("timeout (fcgi-python has --request-timeout)")
        if self._others.get("maxRequests"):
            self._vain.append("maxRequests (no process is replaced)")

    def _vain_at(self, source):
        yield from super()._vain_at(source)
        if source not in ("workers", "cgi"):
            yield "processes (fcgi-python --listen ADDRESS --workers N has them)"


SERVERS = {"flup.server.fcgi": flup.WSGIServer, "flup.server.fcgi_single": Single, "flup.server.fcgi_fork": Fork}
PACKAGES = ("flup", "flup.server")


class Finder:
    """Finds these modules, and the packages that they are in unless these are installed."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in PACKAGES:
            found = importlib.machinery.PathFinder.find_spec(name, path, target)
            return found or importlib.machinery.ModuleSpec(name, cls, is_package=True)
        return importlib.machinery.ModuleSpec(name, cls, origin="fcgi.flup") if name in SERVERS else None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        if module.__name__ in SERVERS:
            module.WSGIServer, module.FCGI_RESPONDER = SERVERS[module.__name__], flup.FCGI_RESPONDER
            module.__all__ = ["WSGIServer"]


def offer():
    """Lets scripts find the modules."""
    sys.meta_path.insert(0, Finder)


def run(words):
    """Does what `python3` does with a script and its arguments."""
    import io
    import os

    offer()
    path = words[0]
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    sys.argv = words
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    names = vars(sys.modules["__main__"])
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]
    names.update(__file__=path, __doc__=None, __package__=None, __spec__=None)
    exec(code, names)
