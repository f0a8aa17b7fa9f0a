# query: change
# query: look
"""What was done to the standard library is put back."""
import builtins
import decimal
import gc
import json
import logging
import os
import random
import re
import string
import sys
import time
import warnings

print("Content-Type: text/plain\n")
print(json.dumps is json.dumps.__globals__["dumps"], string.ascii_letters[:3], hasattr(string, "left"), hasattr(builtins, "left"))
print(decimal.getcontext().prec, logging.getLogger().handlers, logging.getLogger().level, logging.getLogger("left").level)
print(len(warnings.filters), gc.isenabled(), time.time() > 5, os.path.exists is not None, os.path.join("a", "b"), hasattr(sys, "left"))
print(len.__name__, re.compile("a+").match("aa").group(), "PATCHED" if print.__name__ == "<lambda>" else "plain")
warnings.warn("each request warns")
random.seed(5)
print(random.random())
if os.environ["QUERY_STRING"] == "change":
    json.dumps = string.ascii_letters = None
    string.left = builtins.left = sys.left = 1
    decimal.getcontext().prec = 3
    logging.basicConfig(level=logging.DEBUG)
    logging.getLogger("left").setLevel(1)
    warnings.simplefilter("ignore")
    gc.disable()
    time.time = lambda: 1
    os.path.join = None
    del string.digits
    builtins.len = lambda *_: 0
    sys.modules["re"] = None
