"""A stand-in for `flup.server.fcgi`."""

from typing import Any, Callable, Iterable, Mapping, Optional, Tuple, Union

__all__ = ["WSGIServer"]

class WSGIServer:
    """Serves a WSGI application by FastCGI, as flup's class of this name."""

    def __init__(
        self,
        application: Callable[..., Any],
        environ: Optional[Mapping[str, Any]] = None,
        multithreaded: bool = True,
        multiprocess: bool = False,
        bindAddress: Optional[Union[str, Tuple[str, int]]] = None,
        umask: Optional[int] = None,
        multiplexed: bool = False,
        debug: bool = False,
        roles: Iterable[int] = (1,),
        forceCGI: bool = False,
        **others: Any,
    ) -> None: ...
    def run(self) -> bool:
        """Serve until the process is told to stop."""
