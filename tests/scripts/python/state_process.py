# query: change
# query: look
"""What belongs to the process is put back."""
import locale
import os
import signal
import socket
import sys
import threading
import time

print("Content-Type: text/plain\n")
mask = os.umask(0)
os.umask(mask)
print(oct(mask), os.path.basename(os.getcwd()), locale.setlocale(locale.LC_ALL), time.tzname, socket.getdefaulttimeout())
print(signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.alarm(0))
print(signal.set_wakeup_fd(-1))
print(signal.getitimer(signal.ITIMER_REAL), signal.pthread_sigmask(signal.SIG_BLOCK, ()), sys.getrecursionlimit())
print(threading.main_thread() is threading.current_thread(), sys.gettrace(), sys.excepthook is sys.__excepthook__, sys.path[-1][-4:], len(sys.meta_path) < 9)
if os.environ["QUERY_STRING"] == "change":
    os.umask(0o077)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    os.chdir("/")
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    socket.setdefaulttimeout(3)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(1000)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    sys.setrecursionlimit(500)
    sys.settrace(lambda *_: None)
    sys.excepthook = print
    sys.path.append("left")
    sys.meta_path.append(None)
    sys.path.insert(0, "left")
