"""Sources of scripts: what `python3` says of a file that it would not say of the same bytes."""
import _thread
import sys
import warnings

SEE = "https://%s/pep-0263/" % ("peps.python.org" if sys.version_info >= (3, 11) else "python.org/dev/peps")


# `catch_warnings` is the process's, which several threads may use.
compiling = _thread.allocate_lock()


def compile_script(split, source, path):
    """The code of a script, that of its second part when it may be an application, and what warns of it, if anything."""
    with compiling, warnings.catch_warnings(record=True) as given:
        code = checked(split, source, path)
    return (*code, Warn(given) if given else None)


def compile_whole(source, path):
    """The code of a script."""
    return checked(lambda source, path: compile(source, path, "exec", dont_inherit=True), source, path)


def checked(compiled, source, path):
    try:
        code = compiled(source, path)
    except SyntaxError:
        check_encoding(source, path)
        raise
    check_encoding(source, path)
    return code


class Warn:
    """Warns as the compiler did: under CGI, it does for each request."""

    def __init__(self, given):
        self.given = given

    def __call__(self):
        for warning in self.given:
            warnings._showwarnmsg(warning)


def check_encoding(source, path):
    """Finds bytes that are not of the file's encoding, comments included."""
    encoding = declared(source)
    try:
        source.decode(encoding or "utf-8")
    except LookupError:
        wrong = "encoding problem: " + encoding
    except UnicodeDecodeError as e:
        if encoding and encoding.lower().replace("_", "-").startswith("utf-8"):
            return
        line = source.count(b"\n", 0, e.start) + (2 if sys.version_info[:2] == (3, 10) else 1)
        wrong = "Non-UTF-8 code starting with '\\x%02x' in file %s on line %d, but no encoding declared; see %s for details" % (
            source[e.start], path, line, SEE,
        )  # fmt: skip
        if encoding:
            wrong = "encoding problem: " + encoding
    else:
        return
    if sys.version_info < (3, 14):
        raise SyntaxError(wrong) from None


def declared(source):
    """The encoding that a file declares (PEP 263)."""
    first, _, rest = source.partition(b"\n")
    lines = [first, rest.partition(b"\n")[0]]
    if b"coding" not in lines[0] + lines[1]:
        return None
    # Few scripts need it.
    import re

    for line in lines if re.match(rb"[ \t\f]*(?:#.*)?\r?$", first) else lines[:1]:
        found = re.match(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", line)
        if found:
            return found[1].decode("ascii")
    return None
