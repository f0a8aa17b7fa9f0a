import sys

import _package.inner
from _package import NAME

print("Content-Type: text/plain\n")
print(NAME, _package.inner.VALUE, _package.inner.__file__.rpartition("/")[2], sorted(m for m in sys.modules if m.startswith("_package")))
