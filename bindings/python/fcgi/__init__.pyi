"""FastCGI for Python."""

from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union, final

__all__ = ["Request", "RequestTimeout", "__version__", "accept", "finish", "serve", "set_exit_status"]

__version__: str

def accept() -> bool:
    """Give the next request to the streams and the environment; False when there is none any more."""

def finish(status: Optional[int] = None) -> None:
    """Send the answer; the script goes on."""

def serve(
    application: Callable[..., Any],
    listen: Union[str, Iterable[str]] = (),
    *,
    http: Optional[str] = None,
    workers: Optional[int] = None,
    threads: int = 1,
    options: Sequence[str] = (),
) -> int:
    """Serve an application by WSGI or ASGI until the process is told to stop."""

def set_exit_status(status: int) -> None:
    """Set the exit status of the request, unless the script ends otherwise."""

class RequestTimeout(BaseException):
    """The request takes longer than --request-timeout. Not an Exception, so that few keep it by accident."""

@final
class Request:
    """A request: its role, its variables, its streams, its end."""

    @property
    def role(self) -> str: ...
    @property
    def params(self) -> Mapping[str, str]: ...
    @property
    def raw_params(self) -> Mapping[bytes, bytes]: ...
    @property
    def written(self) -> int: ...
    @property
    def aborted(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    def read(self, size: Optional[int] = None, /) -> bytes: ...
    def read_data(self, size: Optional[int] = None, /) -> bytes: ...
    def read_some(self) -> bytes: ...
    def write(self, data: Union[bytes, bytearray, memoryview]) -> int: ...
    def write_error(self, data: Union[bytes, bytearray, memoryview]) -> int: ...
    def flush(self) -> None: ...
    def discard(self) -> bool: ...
    def finish(self, status: int = 0) -> None: ...
