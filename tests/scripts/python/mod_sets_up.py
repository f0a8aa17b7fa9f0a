# query: first
# query: second
"""Modules of the script's own that set things up as they are loaded do so for each request."""
print("Content-Type: text/plain\n", flush=True)
import _sets_up
import _works
import _writes_argv
import builtins
import decimal
import logging
import os
import socket
import sys
import warnings

import _is_elsewhere

print(_is_elsewhere.FOUND, socket.getdefaulttimeout(), builtins.of_the_module, os.environ["OF_THE_MODULE"], "HOME" in os.environ)
print(decimal.getcontext().prec, os.path.of_the_module, sys.excepthook.__name__, logging.getLevelName(15), _writes_argv.NAME)
warnings.warn("nobody sees it")
logging.debug("to the root")
_sets_up.log.debug("to its own")
print(_sets_up.pool.submit(abs, -3).result(), _works.work(4))
print(_writes_argv.main_has())
raise KeyError("for the hook")
