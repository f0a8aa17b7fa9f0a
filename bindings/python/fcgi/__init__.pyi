"""FastCGI for Python."""

from typing import Any, BinaryIO, Callable, Iterable, Iterator, Mapping, Optional, Sequence, Union, final

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

__version__: str

def accept() -> bool:
    """Give the next request to the streams and the environment; False when there is none any more."""

def role() -> str:
    """What the program is asked to be: `"RESPONDER"`, `"AUTHORIZER"`, `"FILTER"` or `"LOGGER"`."""

def data() -> BinaryIO:
    """The file that a Filter transforms, as a binary file; an empty one for other roles."""

def aborted() -> bool:
    """Whether nobody waits for the answer any more."""

def finish(status: Optional[int] = None) -> None:
    """Send the answer; the script goes on."""

def requests() -> Iterator[Request]:
    """Each request as an object, until the server stops. One that is not finished is when the next one is asked for."""

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
    def role(self) -> str:
        """`"RESPONDER"`, `"AUTHORIZER"`, `"FILTER"` or `"LOGGER"`."""
    @property
    def params(self) -> Mapping[str, str]:
        """The variables, as `os.environ` would show them."""
    @property
    def raw_params(self) -> Mapping[bytes, bytes]:
        """The variables as bytes."""
    @property
    def stdin(self) -> BinaryIO:
        """The request body, as a binary file."""
    @property
    def data(self) -> BinaryIO:
        """The file that a Filter transforms, as a binary file."""
    @property
    def stdout(self) -> BinaryIO:
        """The answer, as a binary file; `flush` sends what has been written."""
    @property
    def stderr(self) -> BinaryIO:
        """The web server's error log, as a binary file."""
    @property
    def written(self) -> int:
        """Bytes written to the answer so far."""
    @property
    def aborted(self) -> bool:
        """Whether the answer is no longer wanted."""
    @property
    def finished(self) -> bool:
        """Whether the request has been finished."""
    def read(self, size: Optional[int] = None, /) -> bytes:
        """Up to `size` bytes of the body; without a size, all that is left."""
    def read_data(self, size: Optional[int] = None, /) -> bytes:
        """As `read`, from the file that a Filter transforms."""
    def read_some(self) -> bytes:
        """The next bytes of the body, as soon as there are some; none at its end."""
    def write(self, data: Union[bytes, bytearray, memoryview]) -> int:
        """Write to the answer."""
    def write_error(self, data: Union[bytes, bytearray, memoryview]) -> int:
        """Write to the web server's error log."""
    def flush(self) -> None:
        """Send what has been written."""
    def discard(self) -> bool:
        """Take back what has been written, if nothing has been sent."""
    def finish(self, status: int = 0) -> None:
        """End the request with this exit status: what was written is sent."""
