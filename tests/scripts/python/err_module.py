"""A module of the script's own that is no Python."""
print("Content-Type: text/plain\n", flush=True)
import _no_python
