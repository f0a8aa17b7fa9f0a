import atexit
import builtins
import decimal
import logging
import os
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "_elsewhere"))
socket.setdefaulttimeout(5)
builtins.of_the_module = "a builtin"
os.environ["OF_THE_MODULE"] = "a variable"
os.environ.pop("HOME", None)
decimal.getcontext().prec = 7
os.path.of_the_module = "patched"
warnings.simplefilter("ignore")
atexit.register(print, "the module's end")
logging.addLevelName(15, "BETWEEN")
logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
log = logging.getLogger("_sets_up.log")
pool = ThreadPoolExecutor(1)


def hook(kind, *_):
    print("the module's hook:", kind.__name__)


sys.excepthook = hook
