"""A copy of a module of the library that a script loads for itself takes nobody's place in the next request."""
import importlib.util
import os
import sys

print("Content-Type: text/plain\n")
print(len(os.environ) > 5, os.environ.get("SCRIPT_NAME"), sys.modules["os"] is os)
loaded = "colorsys" in sys.modules
for name in ("os", "colorsys", "textwrap"):
    before = sys.modules.pop(name, None)
    copy = importlib.import_module(name)
    print(name, copy is before, copy.__name__)
    if before is None:
        del sys.modules[name]
    else:
        sys.modules[name] = before
import textwrap

copy.fill = None
print(textwrap.fill("a b c", 3), loaded)
spec = importlib.util.find_spec("string")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.digits = "none"
import string

print(string.digits, string is module, "importlib.util" in sys.modules)
