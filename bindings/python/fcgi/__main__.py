"""The command `fcgi-python`, and `python3 -m fcgi`."""
import sys

from fcgi._fcgi import main


def command():
    """Does what `fcgi-python` does with the command line of this process; gives the exit status."""
    return main(["fcgi-python", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(command())
