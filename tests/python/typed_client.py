"""A small program that a type checker reads: what the package exports is typed."""

from __future__ import annotations

from typing import Mapping

import fcgi


def echo(request: fcgi.Request) -> int:
    params: Mapping[str, str] = request.params
    body: bytes = request.read()
    request.write(b"Content-Type: text/plain\r\n\r\n" + params["REQUEST_METHOD"].encode() + body)
    if not request.aborted:
        request.finish(status=0)
    return request.written


version: str = fcgi.__version__
