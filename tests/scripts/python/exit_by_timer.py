# query: alarm
# query: interrupt
# query: handled
"""A timer that nobody handles ends a CGI program; an interrupt is an exception."""
import os
import signal
import time

print("Content-Type: text/plain\n", flush=True)
if os.environ["QUERY_STRING"] == "alarm":
    signal.signal(signal.SIGALRM, lambda *_: None)
    print(signal.signal(signal.SIGALRM, signal.SIG_DFL) is not None, signal.getsignal(signal.SIGALRM), flush=True)
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(30)
    print("the child:", os.waitpid(child, 0)[1], flush=True)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    print(signal.getsignal(signal.SIGALRM))
elif os.environ["QUERY_STRING"] == "interrupt":
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    except KeyboardInterrupt:
        print("interrupted")
    os.chdir("/no/such/directory")
else:
    signal.signal(signal.SIGALRM, lambda *_: print("handled"))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.2)
