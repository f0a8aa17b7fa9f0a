"""A stand-in for `flup.server.fcgi`: a `dispatch.fcgi` made for it needs `from fcgi.flup import WSGIServer` in place of
`from flup.server.fcgi import WSGIServer`."""
from fcgi._serve import serve

__all__ = ["WSGIServer"]


class WSGIServer:
    """Serves a WSGI application by FastCGI.

    `bindAddress` is the path of a unix socket or a pair of host and port; without it, the socket is the listening one that
    the web server passed as descriptor 0, and a process without one is a CGI program. What flup's further arguments ask for
    is so anyway, or is an option of `fcgi.serve`.
    """

    def __init__(self, application, environ=None, multithreaded=True, multiprocess=False, bindAddress=None, umask=None, **ignored):
        self.application = application
        self.environ = dict(environ or {})
        self.threads = ignored.get("maxThreads") or (5 if multithreaded else 1)
        if bindAddress is None:
            self.listen = ()
        elif isinstance(bindAddress, str):
            self.listen = ("unix:" + bindAddress,)
        else:
            host, port = bindAddress
            self.listen = ("%s:%d" % (("[%s]" % host) if ":" in host else host or "*", port),)
        self.umask = umask

    def run(self):
        """Serve until the process is told to stop. Gives False: flup's tells so whether it was to be reloaded."""
        import os

        application = self.application
        if self.environ:

            def application(environ, start_response, plain=self.application):
                return plain({**environ, **self.environ}, start_response)

        before = None if self.umask is None else os.umask(self.umask)
        try:
            serve(application, self.listen, threads=self.threads)
        finally:
            if before is not None:
                os.umask(before)
        return False
