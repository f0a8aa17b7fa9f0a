"""A stand-in for `flup.server.fcgi`: a `dispatch.fcgi` made for it needs `from fcgi.flup import WSGIServer` in place of
`from flup.server.fcgi import WSGIServer`, and none of that with `fcgi-python --flup dispatch.fcgi`."""
import os
import sys
import threading

from fcgi import _fcgi
from fcgi._wsgi import FileWrapper

__all__ = ["WSGIServer"]

FCGI_RESPONDER = 1
# Threads that flup keeps ready; it makes more when there are more requests.
SPARE_THREADS = 5
MOST_THREADS = 256


class WSGIServer:
    """Serves a WSGI application by FastCGI.

    `bindAddress` is the path of a unix socket, or a pair of host and port; without it, the socket is the listening one that
    the web server passed as descriptor 0 (or systemd), and a process without one is a CGI program. In a script that
    `fcgi-python` serves, requests are those that it gives. What is asked for and cannot be had is said on standard error.
    """

    # Arguments of flup's pool of threads.
    _pool = ("minSpare", "maxSpare", "maxThreads")

    def __init__(
        self,
        application,
        environ=None,
        multithreaded=True,
        multiprocess=False,
        bindAddress=None,
        umask=None,
        multiplexed=False,
        debug=False,
        roles=(FCGI_RESPONDER,),
        forceCGI=False,
        **others
    ):
        for name in others:
            if name not in (*self._pool, "jobClass", "jobArgs"):
                raise TypeError("WSGIServer has no argument %r" % name)
        self.application, self.environ = application, environ or {}
        self.multithreaded, self.multiprocess = multithreaded, multiprocess
        self.address, self.umask, self._others = bindAddress, umask, others
        self.threads = min(others.get("maxThreads") or SPARE_THREADS, MOST_THREADS) if multithreaded else 1
        self.is_cgi = forceCGI or os.environ.get("FCGI_FORCE_CGI", "").upper().startswith("Y")
        # What is asked for in vain wherever the program runs, and what helps.
        self._vain = []
        if debug:
            self._vain.append("debug (clients see no errors but with fcgi-python's --display-errors)")
        if tuple(roles) != (FCGI_RESPONDER,):
            self._vain.append("roles (applications by WSGI are responders)")

    def run(self):
        """Serve until the process is told to stop. Gives False: flup's tells so whether it was to be reloaded."""
        before = None if self.umask is None else os.umask(self.umask)
        try:
            source = _fcgi.serve_at(self._addresses(), self.threads, self.is_cgi)
        finally:
            if before is not None:
                os.umask(before)
        vain = [*self._vain, *self._vain_at(source)]
        if vain:
            print("flup's WSGIServer is asked for what it does not have here: " + "; ".join(vain), file=sys.stderr)
        several = source == "server" and self.threads > 1
        file = os.fsencode(os.path.basename(sys.argv[0]))

        def answer(application=self._served()):
            _fcgi.answer_all(application, file, several, self.multiprocess or source == "cgi", source == "cgi")

        threads = [threading.Thread(target=answer) for _ in range(self.threads - 1)] if several else ()
        for thread in threads:
            thread.start()
        answer()
        for thread in threads:
            thread.join()
        if source == "cgi":
            # As flup does: what a program says behind its loop is for a terminal.
            sys.exit(0)
        return False

    def _addresses(self):
        address = self.address
        if address is None:
            return []
        if isinstance(address, str):
            return ["unix:" + address]
        host, port = address[:2]
        return ["%s:%d" % ("[%s]" % host if ":" in host else host or "*", port)]

    def _vain_at(self, source):
        """What is asked for in vain where requests come from this source."""
        if source not in ("runner", "workers"):
            return
        if self.address is not None:
            yield "bindAddress (fcgi-python serves where --listen says)"
        if self.is_cgi:
            yield "forceCGI (fcgi-python is a server)"
        if source == "runner" and self.multithreaded and "maxThreads" in self._others:
            yield "maxThreads (fcgi-python answers several requests at once with --workers)"

    def _served(self):
        """The application, which may take flup's liberties."""
        plain, own = self.application, self.environ

        def application(environ, start_response):
            environ.update(own)
            result = plain(environ, start_response)
            if isinstance(result, FileWrapper):
                return result
            if isinstance(result, (list, tuple)):
                return [encoded(block) for block in result]
            return Blocks(result)

        return application


class Blocks:
    """The blocks of an answer."""

    def __init__(self, result):
        self.result, self.next = result, iter(result).__next__
        self.close = getattr(result, "close", lambda: None)

    def __iter__(self):
        return self

    def __next__(self):
        return encoded(self.next())


def encoded(block):
    """flup sends text, too, of which each character is a byte."""
    return block.encode("latin-1") if isinstance(block, str) else block
