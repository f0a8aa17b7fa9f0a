"""What `os` says of its functions holds for those that a script finds."""
import locale
import os
import pickle
import signal
import time

print("Content-Type: text/plain\n")
for name in ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks"):
    print(name, sorted(n for n in dir(os) if callable(getattr(os, n)) and getattr(os, n) in getattr(os, name)))
for function in (os.kill, os.chdir, os._exit, os.fork, signal.alarm, signal.signal, signal.raise_signal, time.tzset, locale.setlocale):
    print(function.__module__, function.__name__, pickle.loads(pickle.dumps(function)) is function)
