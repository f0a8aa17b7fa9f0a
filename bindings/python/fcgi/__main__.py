"""The command `fcgi-python`, and `python3 -m fcgi`."""
import _signal
import sys

# The first directory is of this file or of the command, or the current one: none that a script may import from.
has_own_directory = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))


def find_package():
    """Imports the package that this file lies in, which is run by its path."""
    directory = __file__.rpartition("/")[0].rpartition("/")[0]
    sys.path.insert(0, directory)
    import fcgi._fcgi

    sys.path.remove(directory)


def command():
    """Does what `fcgi-python` does with the command line of this process; gives the exit status."""
    from fcgi._fcgi import command

    if has_own_directory:
        del sys.path[0]
    # What scripts find in their `__main__`.
    main = sys.modules["__main__"]
    main.__doc__ = main.__package__ = main.__spec__ = None
    # The server stops by itself: no KeyboardInterrupt is to meet a script, or this function. What is started by exec has its own.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    return command(["fcgi-python", *sys.argv[1:]])


if __name__ == "__main__":
    if not __package__:
        find_package()
    sys.exit(command())
