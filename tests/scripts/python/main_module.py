"""The script is `__main__`, in `sys.modules`, too."""
import __main__
import dataclasses
import inspect
import pickle
import sys
import typing

print("Content-Type: text/plain\n")


@dataclasses.dataclass
class Point:
    x: int
    y: "typing.List[int]"


print(__name__, __main__ is sys.modules["__main__"], __main__.Point is Point, sorted(n for n in vars(__main__) if n[0] == "_"))
print(pickle.loads(pickle.dumps(Point(1, [2]))), typing.get_type_hints(Point))
print(inspect.getsource(Point).splitlines()[0], __doc__, __file__ == sys.argv[0], len(sys.argv), __spec__, __package__)
print(hasattr(__main__, "left"), sys.path[0] == __file__.rpartition("/")[0], type(__loader__).__name__, __annotations__)
left = True
total: int = 3
print(__annotations__, sys._getframe().f_back, len(inspect.stack()))
