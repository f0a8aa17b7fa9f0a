"""A small program that a type checker reads: what the package exports is typed, and misuse is found."""

from __future__ import annotations

import io
from typing import Any, Callable, Iterable, Mapping

import fcgi
from fcgi.flup import WSGIServer


def echo(request: fcgi.Request) -> int:
    params: Mapping[str, str] = request.params
    raw: Mapping[bytes, bytes] = request.raw_params
    body: bytes = request.read() + request.read(10) + request.read_some() + request.read_data()
    request.write(b"Content-Type: text/plain\r\n\r\n" + params["REQUEST_METHOD"].encode() + body)
    request.write(bytearray(raw[b"QUERY_STRING"]))
    request.write_error(memoryview(request.role.encode()))
    request.flush()
    if not request.aborted and not request.finished and not request.discard():
        request.finish(status=0)
    request.write("text")  # type: ignore[arg-type]
    request.role = "filter"  # type: ignore[misc]
    return request.written


def answer_all() -> None:
    for request in fcgi.requests():
        head: bytes = request.stdin.readline()
        for line in request.data:
            head += line
        request.stdout.write(head)
        request.stdout.flush()
        print("said to the error log", file=io.TextIOWrapper(request.stderr))
        request.stdout.write("text")  # type: ignore[call-overload]
        request.stdin = request.data  # type: ignore[misc]
    next(fcgi.requests()).params["NAME"] = "value"  # type: ignore[index]


def loop() -> None:
    while fcgi.accept():
        fcgi.set_exit_status(1)
        fcgi.finish()
        fcgi.finish(2)
    fcgi.set_exit_status("1")  # type: ignore[arg-type]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [environ["QUERY_STRING"].encode()]


def serve() -> int:
    fcgi.serve(application, listen=["unix:a", "*:9000"], options=("--read-timeout", "10"))
    fcgi.serve(application, listn="unix:a")  # type: ignore[call-arg]
    WSGIServer(application, environ={"a": 1}, bindAddress=("", 9000)).run()
    WSGIServer(application, multithreaded=True, maxThreads=20, umask=0o007, debug=False, roles=(1,)).run()
    WSGIServer(application, bindAddress=9000)  # type: ignore[arg-type]
    return fcgi.serve(application, "unix:a", http="localhost:8080", workers=2, threads=4)


version: str = fcgi.__version__
