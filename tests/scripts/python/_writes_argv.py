import os
import sys

import __main__

NAME = os.path.basename(sys.argv[0])


def main_has():
    return __main__.__file__ == sys.argv[0] and hasattr(__main__, "_writes_argv")
