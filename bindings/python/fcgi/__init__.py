"""FastCGI for Python.

A script that runs under `fcgi-python` can ask for its requests itself, as in the FastCGI paper of 1996. What stands before
the loop is done once, and everything stays; as a CGI program, or on a terminal, the body runs once::

    import fcgi

    count = 0
    while fcgi.accept():
        count += 1
        print("Content-Type: text/html\\n")
        print(f"Hello world!<br>Request number {count}.")

Requests can be had as objects, too::

    for request in fcgi.requests():
        request.stdout.write(b"Content-Type: text/plain\\r\\n\\r\\n" + request.params["QUERY_STRING"].encode())

Both loops work in a program that `python3` runs as well: with a listening socket as descriptor 0 (spawn-fcgi, mod_fcgid,
lighttpd) or from systemd it is a FastCGI server; otherwise there is one request, that of CGI.

An application by the rules of WSGI or ASGI can be served from a program of one's own that `python3` runs::

    fcgi.serve(application, listen="unix:/run/app.sock", workers=4)

What `role()`, `data()` and `aborted()` say is about the request that the program has.

In a loop of `accept`, `sys.stdin`, `sys.stdout`, `sys.stderr`, `os.environ` and descriptors 0 to 2 are the request's.
"""
from fcgi._fcgi import Request, RequestTimeout, __version__, accept, finish, set_exit_status
# Modules of the package have names of their own here: `_current` is one.
from fcgi._fcgi import current as _present, next_request as _next


def role():
    """What the program is asked to be: `"RESPONDER"`, `"AUTHORIZER"`, `"FILTER"` or `"LOGGER"`."""
    request = _present()
    if request is not None:
        return request.role
    import os

    return os.environ.get("FCGI_ROLE", "RESPONDER").upper()


def data():
    """The file that a Filter transforms, as a binary file; an empty one for other roles."""
    request = _present()
    if request is not None:
        return request.data
    import io

    return io.BytesIO()


def aborted():
    """Whether nobody waits for the answer any more."""
    request = _present()
    return request is not None and request.aborted


def requests():
    """Each request as an object, until the server stops. One that is not finished is when the next one is asked for."""
    return iter(_next, None)


def serve(application, listen=(), **named):
    from fcgi import _serve

    return _serve.serve(application, listen, **named)


__all__ = [
    "Request",
    "RequestTimeout",
    "__version__",
    "aborted",
    "accept",
    "data",
    "finish",
    "requests",
    "role",
    "serve",
    "set_exit_status",
]
