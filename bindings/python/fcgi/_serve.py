"""Serves an application from a program of one's own."""
import _signal
import sys

from fcgi import _application, _fcgi


class no_interrupts:
    """Leaves SIGINT to the server, which would else stop and then find it raised as an exception."""

    def __enter__(self):
        self.handler = _signal.getsignal(_signal.SIGINT)
        if self.handler is _signal.default_int_handler:
            self.set(_signal.SIG_DFL)

    def __exit__(self, *_):
        if self.handler is _signal.default_int_handler:
            self.set(self.handler)

    @staticmethod
    def set(handler):
        try:
            _signal.signal(_signal.SIGINT, handler)
        except ValueError:
            pass  # Another thread than the first one has no interrupts.


def serve(application, listen=(), *, http=None, workers=None, threads=1, options=()):
    """Serve an application by WSGI or ASGI until the process is told to stop.

    `listen` is an address, or several: `unix:PATH`, `HOST:PORT`, `fd:N`. Without any (and without `http`, which is an
    address for HTTP/1.1) the surroundings say: a listening socket on descriptor 0, systemd's `LISTEN_FDS`, or CGI variables,
    which mean one request. With `workers`, the program is started anew for each of them, and comes here again. `options` are
    further options of `fcgi-python`, such as `("--read-timeout", "10")`.

    Raises `OSError` when it cannot serve; what is wrong is said on standard error.
    """
    main = getattr(_fcgi, "main", None)
    if main is None:
        raise OSError("fcgi.serve() is for programs that python3 runs: fcgi-python serves by --app")
    if not callable(application):
        raise TypeError("the application must be callable")
    if "--reload" in options:
        raise ValueError("--reload is for applications that fcgi-python loads by --app")
    _application._loaded[_application.GIVEN] = application
    words = ["fcgi-python", "--app", _application.GIVEN, "--threads", str(threads), *options]
    for address in [listen] if isinstance(listen, str) else listen:
        words += ["--listen", address]
    if http is not None:
        words += ["--http", http]
    if workers is not None:
        words += ["--workers", str(workers)]
    if sys.stdout is not None:
        sys.stdout.flush()
    with no_interrupts():
        status = main(words)
    if status == 2:
        raise OSError("the application cannot be served")
    return status
