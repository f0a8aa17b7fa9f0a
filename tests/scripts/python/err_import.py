import sys

print("Content-Type: text/plain\n", flush=True)
try:
    import _broken
except SyntaxError as e:
    print(type(e).__name__, e.lineno, "_broken" in sys.modules)
import no_such_module
