"""FastCGI for Python."""
from fcgi._fcgi import Request, __version__

__all__ = ["Request", "__version__"]
