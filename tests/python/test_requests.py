"""Programs that `python3` runs and that take their requests themselves; launchers made for flup."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import COMMAND, ask, environment, listens, python

EXAMPLES = os.path.join(os.path.dirname(__file__), "../../examples")


class Program:
    """A program that is given a listening socket: on descriptor 0, as spawn-fcgi passes it, or as systemd does."""

    def __init__(self, directory, text, descriptor=0, words=(sys.executable,)):
        self.address, path = str(directory / "s"), str(directory / "program.py")
        with open(path, "w") as file:
            file.write(text)
        self.log = open(self.address + ".log", "w+b")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            line = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null' if descriptor == 3 else 'exec "$@"'
            words = ["sh", "-c", line, "sh", *words, path]
            self.process = subprocess.Popen(words, env=environment(), stdin=listener, stdout=subprocess.DEVNULL, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def ask(self, query="", body=b"", **named):
        return ask(self.address, {"QUERY_STRING": query}, body, **named)

    def end(self, number=signal.SIGTERM):
        """Stops it; gives the exit status, and what it has said."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        status = self.process.wait(30)
        self.log.seek(0)
        return status, self.log.read().decode()


ACCEPT = """
import os, subprocess, sys
import fcgi

print("before the loop", file=sys.stderr)
count = 0
while fcgi.accept():
    count += 1
    what = os.environ["QUERY_STRING"]
    print("Content-Type: text/plain\\n")
    print(count, what, sys.stdin.read(), "LISTEN_FDS" in os.environ, flush=True)
    subprocess.run(["sh", "-c", "echo child $QUERY_STRING; echo errors >&2"])
    if what == "status":
        fcgi.set_exit_status(7)
    if what == "error":
        raise ValueError("in the loop")
    if what == "fork" and os.fork() == 0:
        print("forked")
print("behind the loop", "QUERY_STRING" in os.environ)
"""


def accepted(count, query, body=b""):
    return b"Content-Type: text/plain\n\n%d %s %s False\nchild %s\n" % (count, query, body, query)


@pytest.mark.parametrize("descriptor", [0, 3])
def test_a_loop_of_accept(tmp_path, descriptor):
    with Program(tmp_path, ACCEPT, descriptor) as program:
        assert program.ask("a", b"body") == (accepted(1, b"a", b"body"), b"errors\n", 0)
        assert program.ask("status") == (accepted(2, b"status"), b"errors\n", 7)
        # A child that the program forks ends as a process does, and serves nobody.
        answer, errors, status = program.ask("fork")
        assert (answer, errors, status) == (accepted(3, b"fork") + b"forked\nbehind the loop True\n", b"errors\n", 0)
        for number in 4, 5, 6:
            assert program.ask("b") == (accepted(number, b"b"), b"errors\n", 0)
        assert program.end() == (0, "before the loop\nbehind the loop True\n")


def test_an_error_in_a_loop_of_accept(tmp_path):
    with Program(tmp_path, ACCEPT) as program:
        answer, errors, status = program.ask("error")
        assert (answer, status) == (accepted(1, b"error"), 1)
        assert errors.startswith(b"errors\nTraceback") and errors.endswith(b"ValueError: in the loop\n")
        assert program.wait() == (1, "before the loop\n")


OBJECTS = """
import os, sys
import fcgi

count = 0
for request in fcgi.requests():
    count += 1
    what = request.params["QUERY_STRING"]
    print("printed", flush=True)
    if what == "error":
        raise ValueError("in the loop")
    if what == "nothing":
        continue
    request.stderr.write(b"errors\\n")
    request.stdout.write(b"Content-Type: text/plain\\r\\n\\r\\n")
    request.stdout.write(repr((count, what, request.stdin.read(3), request.stdin.read(), "QUERY_STRING" in os.environ)).encode())
    if what == "fork" and os.fork() == 0:
        sys.exit()
    request.finish(8 if what == "finish" else 0)
    assert request.finished
print("behind the loop", file=sys.stderr)
"""


def answered(*what):
    return b"Content-Type: text/plain\r\n\r\n" + repr((*what, False)).encode()


@pytest.mark.parametrize("descriptor", [0, 3])
def test_a_loop_of_objects(tmp_path, descriptor):
    with Program(tmp_path, OBJECTS, descriptor) as program:
        assert program.ask("a", b"body") == (answered(1, "a", b"bod", b"y"), b"errors\n", 0)
        assert program.ask("finish") == (answered(2, "finish", b"", b""), b"errors\n", 8)
        assert program.ask("nothing")[0].startswith(b"Status: 500 ")
        assert program.ask("fork", b"x" * 200000) == (answered(4, "fork", b"xxx", b"x" * 199997), b"errors\n", 0)
        assert program.ask("b") == (answered(5, "b", b"", b""), b"errors\n", 0)
        assert program.end() == (0, "behind the loop\n")


def test_an_error_in_a_loop_of_objects(tmp_path):
    with Program(tmp_path, OBJECTS) as program:
        answer, errors, status = program.ask("error")
        assert answer.startswith(b"Status: 500 ") and (errors, status) == (b"", 1)
        status, log = program.wait()
        assert status == 1 and log.endswith("ValueError: in the loop\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("text", [ACCEPT, OBJECTS])
def test_it_stops_while_it_waits(tmp_path, text, number):
    with Program(tmp_path, text) as program:
        program.ask("a")
        status, log = program.end(number)
        assert status == 0 and "behind the loop" in log and "Traceback" not in log


def test_a_handler_of_the_programs_own_is_called(tmp_path):
    text = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: print('handled', file=sys.stderr))\n" + OBJECTS
    with Program(tmp_path, text) as program:
        program.ask("a")
        assert program.end() == (0, "handled\nbehind the loop\n")


def test_roles(tmp_path):
    with open(os.path.join(EXAMPLES, "roles.py")) as file:
        text = file.read()
    with Program(tmp_path, text) as program:
        head = b"Content-Type: text/plain\r\n\r\n"
        for number in 1, 5:
            assert program.ask(body=b"12345")[0] == head + b"Request number %d, with 5 bytes.\n" % number
            assert program.ask(body=b"unread", role=3, data=b"a line\n" * 5000)[0] == head + b"A LINE\n" * 5000
            assert program.ask("word=sesame", role=2)[0] == b"Status: 200 OK\r\nVariable-GUEST: yes\r\n\r\n"
            assert program.ask("word=what", role=2)[0].startswith(b"Status: 403 Forbidden\r\n")
        assert program.end()[0] == 0


THREADS = """
import threading
import fcgi

meeting = threading.Barrier(3)


def serve():
    for request in fcgi.requests():
        # Nobody gets on before there are three requests.
        meeting.wait(20)
        request.stdout.write(b"Content-Type: text/plain\\r\\n\\r\\nmet")


threads = [threading.Thread(target=serve) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_share_the_server(tmp_path):
    with Program(tmp_path, THREADS) as program, ThreadPoolExecutor() as pool:
        for asked in [pool.submit(program.ask) for _ in range(9)]:
            assert asked.result() == (b"Content-Type: text/plain\r\n\r\nmet", b"", 0)
        assert program.end() == (0, "")


@pytest.mark.parametrize("loop", ["while fcgi.accept():\n    print('Hi', request())", "for r in fcgi.requests():\n    r.stdout.write(b'Hi %d' % request())"])
def test_once_without_a_server(tmp_path, loop):
    path = tmp_path / "loop.py"
    path.write_text("import fcgi\n\n\ndef request(count=[0]):\n    count[0] += 1\n    return count[0]\n\n\n%s\n%s\n" % (loop, loop))
    for variables in {}, {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}:
        ended = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env={**environment(), **variables})
        assert (ended.stdout.strip(), ended.stderr, ended.returncode) == ("Hi 1", "", 0)


def test_one_way_only(tmp_path):
    path = tmp_path / "both.py"
    path.write_text("import fcgi\nfor request in fcgi.requests():\n    fcgi.accept()\n")
    assert "not by both" in python(str(path)).stderr


LAUNCHER = """#!/usr/bin/python
import sys, threading
from flup.server.fcgi import WSGIServer

meeting = threading.Barrier(2)


def my_application(environ, start_response):
    if environ["QUERY_STRING"] == "meet":
        meeting.wait(20)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["%s %s" % (environ["PATH_INFO"], environ["wsgi.multithread"])]


if __name__ == "__main__":
    WSGIServer(my_application, bindAddress=ADDRESS, maxThreads=2).run()
    print("behind the server", __file__, sys.argv, file=sys.stderr)
"""
HEAD = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@pytest.mark.parametrize("command", [(COMMAND,), (COMMAND, "-S"), (sys.executable, "-m", "fcgi")])
def test_a_launcher_made_for_flup(tmp_path, command):
    path, own = str(tmp_path / "dispatch.fcgi"), str(tmp_path / "own")
    with open(path, "w") as file:
        file.write(LAUNCHER.replace("ADDRESS", repr(own)))
    # With a socket of its own.
    with subprocess.Popen([*command, "--flup", path, "word"], stderr=subprocess.PIPE, env=environment()) as server, ThreadPoolExecutor() as pool:
        while not listens(own):
            assert server.poll() is None, server.stderr.read()
            time.sleep(0.02)
        for asked in [pool.submit(ask, own, {"QUERY_STRING": "meet", "PATH_INFO": "/p"}) for _ in range(4)]:
            assert asked.result() == (HEAD + b"/p True", b"", 0)
        server.terminate()
        assert server.stderr.read().decode() == "behind the server %s %r\n" % (path, [path, "word"])
    assert server.returncode == 0
    # As a CGI program.
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "PATH_INFO": "/c", "FCGI_FORCE_CGI": "Y"}
    path_of_cgi = tmp_path / "cgi.fcgi"
    path_of_cgi.write_text(LAUNCHER.replace("ADDRESS", "None"))
    cgi = subprocess.run([*command, "--flup", str(path_of_cgi)], capture_output=True, env={**environment(), **variables})
    assert (cgi.stdout, cgi.stderr, cgi.returncode) == (HEAD + b"/c False", b"", 0)


def test_a_launcher_that_calls_its_application_app(tmp_path):
    path = tmp_path / "app.fcgi"
    path.write_text(
        "from flup.server.fcgi import WSGIServer\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [environ['PATH_INFO'].encode()]\n"
        "WSGIServer(app).run()\n"
    )
    variables = {"GATEWAY_INTERFACE": "CGI/1.1", "PATH_INFO": "/c"}
    once = subprocess.run([COMMAND, "--flup", str(path)], capture_output=True, env={**environment(), **variables})
    assert (once.stdout, once.stderr) == (b"Status: 200 OK\r\n\r\n/c", b""), once


def test_a_launcher_made_for_flup_in_a_runner(serve, tmp_path):
    path = tmp_path / "dispatch.fcgi"
    path.write_text(LAUNCHER.replace("ADDRESS", "'/elsewhere'"))
    address = serve("--flup", "--workers", "2", str(path))
    for number in range(10):
        answer, errors, status = ask(address, {"PATH_INFO": "/p"})
        assert (answer, status) == (HEAD + b"/p False", 0)
        # Each of the two says it once.
        assert errors == b"" or (b"bindAddress" in errors and b"maxThreads" not in errors)


def test_flup_that_is_installed(serve, tmp_path):
    """What `--flup` does not offer is found where it is installed."""
    for name in ("flup", "flup/server"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "flup/other.py").write_text("name = 'other'\n")
    (tmp_path / "flup/server/fcgi.py").write_text("1 / 0\n")
    path = tmp_path / "dispatch.fcgi"
    path.write_text(
        "from flup.other import name\nfrom flup.server.fcgi_single import WSGIServer\nimport flup.server.fcgi\n\n\n"
        "def answer(environ, start_response):\n    start_response('200 OK', [])\n    return [name.encode()]\n\n\nWSGIServer(answer).run()\n"
    )
    address = serve("--flup", str(path))
    assert ask(address, {}) == (b"Status: 200 OK\r\n\r\nother", b"", 0)


def test_arguments_that_flup_does_not_know():
    import fcgi.flup

    with pytest.raises(TypeError, match="maxChildren"):
        fcgi.flup.WSGIServer(print, maxChildren=3)
