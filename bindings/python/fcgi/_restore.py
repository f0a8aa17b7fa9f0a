"""Puts back what a script changed, and does what happens at the end of a process."""
import _thread
import builtins
import os
import sys
import warnings

from fcgi import _fcgi

modules = sys.modules

# What the standard library once had, and the distribution that has it now.
REMOVED = {
    "aifc": "standard-aifc", "asynchat": "standard-asynchat", "asyncore": "standard-asyncore",
    "audioop": "audioop-lts", "cgi": "legacy-cgi", "cgitb": "legacy-cgi", "chunk": "standard-chunk",
    "crypt": "legacycrypt", "distutils": "setuptools", "imghdr": "standard-imghdr", "imp": "zombie-imp",
    "mailcap": "standard-mailcap", "nntplib": "standard-nntplib", "pipes": "standard-pipes",
    "smtpd": "aiosmtpd", "sndhdr": "standard-sndhdr", "sunau": "standard-sunau", "telnetlib": "standard-telnetlib",
    "uu": "standard-uu", "xdrlib": "standard-xdrlib",
}  # fmt: skip


def hint(exception):
    """Says how a module comes back that the standard library had."""
    package = REMOVED.get((exception.name or "").partition(".")[0])
    if package:
        print(
            "fcgi-python: Python %d.%d has no module %r any more: pip install %s brings it back"
            % (*sys.version_info[:2], exception.name, package),
            file=sys.stderr,
        )


class Restore:
    """How the interpreter was before the first script, and what came since."""

    def __init__(self, script):
        self.script = script
        self.path = list(sys.path)
        self.lists = [(l, list(l)) for l in (sys.meta_path, sys.path_hooks, sys.warnoptions)]
        changing = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__", "argv"}
        sys.argv = []
        self.snapshots = [
            _fcgi.Snapshot(sys.__dict__, changing),
            _fcgi.Snapshot(builtins.__dict__, {"_"}),
            _fcgi.Snapshot(os.__dict__),
        ]
        self.sys_path = sys.path
        self.recursion = sys.getrecursionlimit()
        self.directory = None
        self.filters = list(warnings.filters)

    def enter(self, directory):
        """Makes ready for a script of a directory."""
        where, folder = directory
        if self.directory != where:
            os.chdir(where)
            self.directory = where
        self.sys_path[:] = [folder, *self.path]

    def finish(self):
        """What happens at the end of a process."""

    def leave(self):
        """Puts back what a script changed."""
        _fcgi.restore_all(self.snapshots)
        for now, before in self.lists:
            if now != before:
                now[:] = before
        if sys.getrecursionlimit() != self.recursion:
            sys.setrecursionlimit(self.recursion)
