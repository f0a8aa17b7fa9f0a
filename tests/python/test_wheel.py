"""The wheel, as it is installed."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import COMMAND, ask, environment, listens, python, run

APPLICATION = """
from wsgiref.validate import validator

calls = 0


def application(environ, start_response):
    global calls
    calls += 1
    body = environ["wsgi.input"].read(1 << 20)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %d %s" % (calls, len(body), environ["PATH_INFO"].encode())]


application = validator(application)
"""


def test_the_package():
    import fcgi

    assert fcgi.__version__ and fcgi.__all__
    assert os.path.exists(os.path.join(os.path.dirname(fcgi.__file__), "py.typed"))


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import sys; print(sys.argv, sys.executable, sys.flags, sys.orig_argv[1:] if hasattr(sys, 'orig_argv') else 0)", "a", "--b"],
        ["-O", "-B", "-W", "error", "-X", "utf8", "-c", "import sys; print(sys.flags, sys.warnoptions, sys._xoptions)"],
        ["-m", "platform", "terse"],
        ["-c", "import sys; sys.exit(7)"],
        ["-c", "raise ValueError('bad')"],
        ["-V"],
        ["no-such-file.py"],
    ],
)
def test_on_a_terminal_it_is_python3(words):
    ours, real = run(*words), python(*words)
    assert (ours.stdout, ours.stderr, ours.returncode) == (real.stdout, real.stderr, real.returncode)


def test_closed_descriptors_stay_closed():
    line = ["-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"]
    ours, real = (
        subprocess.run(["sh", "-c", 'exec "$@" <&- 2>&-', "sh", command, *line], stdout=subprocess.PIPE, env=environment())
        for command in (COMMAND, sys.executable)
    )
    assert (ours.stdout, ours.returncode) == (real.stdout, 0)


def test_python_is_started_once(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'started\\n')\n")
    env = {**environment(), "PYTHONPATH": str(tmp_path)}
    for words in (["-c", "pass"], ["-W", "error", os.devnull, "--listen"], ["-m", "this"], ["--", os.devnull], ["-Xutf8", os.devnull]):
        once = subprocess.run([COMMAND, *words], capture_output=True, text=True, env=env)
        assert (once.stderr, once.returncode) == ("started\n", 0), words


@pytest.mark.parametrize(
    "first, works",
    [
        ("#!%s\n", True),
        ("#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n", True),
        ("#!/bin/sh\n'''exec' %s \"$0\" \"$@\"\n' '''\n", True),
        ("#!/usr/bin/env python3\n", False),
        ("", False),
    ],
)
def test_the_launcher_finds_python(tmp_path, first, works):
    """As installers write it into the scripts of an environment; a path with spaces in it takes a second line."""
    directory = tmp_path / "with spaces"
    directory.mkdir()
    os.symlink(shutil.copy(COMMAND, directory), tmp_path / "linked")
    (directory / "fcgi-python-serve").write_text(first % sys.executable if works else first)
    words = [tmp_path / "linked", "-c", "import sys; print(sys.executable)"]
    found = subprocess.run(words, capture_output=True, text=True, env=environment())
    if works:
        assert (found.stdout, found.stderr) == (sys.executable + "\n", "")
    else:
        assert found.returncode == 2 and "does not say which Python runs it" in found.stderr


def test_help_and_version():
    help = run("--help").stdout
    assert "--listen" in help and help.endswith(python("-h").stdout)
    assert "Python %d.%d" % sys.version_info[:2] in run("--version").stdout
    wrong = run("--no-such-option")
    assert wrong.returncode == 2 and "--no-such-option" in wrong.stderr


@pytest.mark.parametrize("command", [None, (sys.executable, "-m", "fcgi")])
def test_a_script(serve, tmp_path, command):
    script = tmp_path / "script.py"
    script.write_text("import os, sys\nprint('Content-Type: text/plain\\n')\nprint(os.environ['QUERY_STRING'], sys.stdin.read(), __name__)\nsys.exit(3)\n")
    address = serve(str(script), **({"command": command} if command else {}))
    for number in range(3):
        stdout, stderr, status = ask(address, {"QUERY_STRING": "q%d" % number}, b"body")
        assert (stdout, stderr, status) == (b"Content-Type: text/plain\n\nq%d body __main__\n" % number, b"", 3)


SCRIPTS = glob.glob(os.path.join(os.path.dirname(__file__), "../scripts/python/[a-z]*.py"))
# Looks for the frames below its own, which are those of the command here.
SCRIPTS = sorted(script for script in SCRIPTS if not script.endswith("/main_module.py"))


def messages(stderr):
    """The error stream without its tracebacks."""
    return [line for line in stderr.splitlines() if line and not line.startswith((b"  ", b"Traceback"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=os.path.basename)
def test_as_under_cgi(serve, script):
    """More requests are compared in the tests of the program."""
    script = os.path.abspath(script)
    with open(script, encoding="latin-1") as text:
        queries = [line[len("# query: ") :].rstrip("\n") for line in text if line.startswith("# query: ")]
    # What CPython 3.12 and later say of a status that is no C long is an accident of their own.
    queries = [query for query in queries if query != "1 << 80"] + ["a=1&b=2"]
    address = serve(script)
    for query in queries:
        params = {"REQUEST_METHOD": "POST", "QUERY_STRING": query, "SCRIPT_FILENAME": script, "SCRIPT_NAME": "/x.py", "CONTENT_LENGTH": "9"}
        real = subprocess.run(
            [sys.executable, script], input=b"word=good", env={**environment(), **params}, cwd=os.path.dirname(script), capture_output=True
        )
        for _ in range(3):
            stdout, stderr, status = ask(address, params, b"word=good")
            # A script that says nothing gets an error page.
            assert stdout == real.stdout or not real.stdout and stdout.startswith(b"Status: 500 ")
            assert (messages(stderr), status) == (messages(real.stderr), real.returncode & 0xFF)


STATE = """
import os, sys
print("Content-Type: text/plain\\n")
print(sys.flags, sys.warnoptions, sys._xoptions, sys.path, sys.argv, sys.executable, sys.prefix, sys.modules["__main__"] is not None)
print(sys.stdout.line_buffering, sys.stdout.write_through, __debug__, __doc__, __package__, __spec__, __file__, sorted(globals()))
"""


@pytest.mark.parametrize(
    "options",
    [(), ("-O",), ("-OO", "-B"), ("-I",), ("-S",), ("-E", "-s"), ("-W", "error", "-b"), ("-X", "utf8", "-Xdev"), ("-u",)]
    + [("-P",)] * (sys.version_info >= (3, 11)),
)
@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_options_of_the_interpreter(serve, tmp_path, options, workers):
    script = tmp_path / "state.py"
    script.write_text(STATE)
    real = python(*options, str(script), "-c", "--listen")
    address = serve(*options, *workers, str(script), "-c", "--listen")
    for _ in range(2):
        stdout, stderr, status = ask(address, {"SCRIPT_FILENAME": str(script)})
        assert (stdout.decode(), stderr.decode(), status) == (real.stdout, real.stderr, 0)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_an_interrupt_stops_it(tmp_path, workers):
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('Content-Type: text/plain\\n', flush=True)\ntime.sleep(.5)\nprint('done')\n")
    address = str(tmp_path / "s")
    with subprocess.Popen([COMMAND, "--listen", "unix:" + address, *workers, str(script)], stderr=subprocess.PIPE, env=environment()) as server:
        with ThreadPoolExecutor() as threads:
            while not listens(address):
                time.sleep(0.02)
            asked = threads.submit(ask, address, {})
            time.sleep(0.3)
            server.send_signal(signal.SIGINT)
            assert asked.result()[0].endswith(b"done\n")
        assert b"Traceback" not in server.stderr.read()
    assert server.returncode == 0


@pytest.mark.parametrize("options", [(), ("-O",)])
@pytest.mark.parametrize("descriptor", [0, 3])
def test_a_socket_that_is_passed(tmp_path, descriptor, options):
    """On descriptor 0, as spawn-fcgi passes it, or as systemd does."""
    script = tmp_path / "script.py"
    script.write_text("import os\nprint('Content-Type: text/plain\\n')\nprint(__debug__, 'LISTEN_FDS' in os.environ)\n")
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        line = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null' if descriptor == 3 else 'exec "$@"'
        words = ["sh", "-c", line, "sh", COMMAND, *options, str(script)]
        with subprocess.Popen(words, env=environment(), stdin=listener, stderr=subprocess.DEVNULL) as server:
            for _ in range(2):
                assert ask(address, {}) == (b"Content-Type: text/plain\n\n%s False\n" % str(not options).encode(), b"", 0)
            server.terminate()
    assert server.returncode == 0


def test_options_of_the_interpreter_for_a_cgi_program(tmp_path):
    (tmp_path / "site_app.py").write_text("def app(environ, start):\n    start('200 OK', [])\n    return [b'%d' % __debug__]\n")
    env = {**environment(), "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET"}
    for options, debug in ([], "1"), (["-O"], "0"):
        words = [COMMAND, *options, "--app", "site_app"]
        cgi = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (cgi.stdout.splitlines()[-1], cgi.stderr) == (debug, "")


def test_what_cannot_be_served(tmp_path):
    address = "unix:%s/s" % tmp_path
    for words in (["-c", "pass"], ["-m", "json"]):
        wrong = run("--listen", address, *words)
        assert (wrong.returncode, wrong.stderr) == (2, "fcgi-python: requests are for a script, not for what %s names\n" % words[0])
    assert not os.path.exists("%s/s" % tmp_path)


def test_an_application_by_name(serve, tmp_path):
    (tmp_path / "site_app.py").write_text(APPLICATION)
    address = serve("--app", "site_app:application", cwd=tmp_path)
    for number in 1, 2, 3:
        stdout, stderr, status = ask(
            address,
            {"SCRIPT_NAME": "/a/b", "REQUEST_METHOD": "POST", "SERVER_NAME": "x", "SERVER_PORT": "80", "CONTENT_LENGTH": "100000"},
            b"x" * 100000,
        )
        assert (stdout, stderr, status) == (b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n%d 100000 /a/b" % number, b"", 0)


def test_workers(serve, tmp_path):
    (tmp_path / "pids.py").write_text(
        "import os\n\ndef app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%d' % os.getpid()]\n"
    )
    address = serve("--workers", "2", str(tmp_path / "pids.py"))
    assert all(ask(address, {})[0].startswith(b"Status: 200 OK") for _ in range(20))


def test_flask(serve, tmp_path):
    (tmp_path / "flask_app.py").write_text(
        "from flask import Flask, request\n\napp = Flask(__name__)\n\n\n"
        "@app.post('/hello/<name>')\ndef hello(name):\n    return 'Hello %s, %s' % (name, request.form['word'])\n\n\n"
        "if __name__ == '__main__':\n    app.run()\n"
    )
    address = serve(str(tmp_path / "flask_app.py"))
    params = {
        "SCRIPT_NAME": "/hello/you",
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": "9",
        "HTTP_HOST": "localhost",
    }
    for _ in range(2):
        stdout, stderr, _ = ask(address, params, b"word=good")
        assert stdout.endswith(b"\r\n\r\nHello you, good"), (stdout, stderr)


def program(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(
        "import sys\n\ndef application(environ, start_response):\n    start_response('200 OK', [('X', environ.get('OWN', '-'))])\n"
        "    return [environ['PATH_INFO'].encode()]\n\n\nif __name__ == '__main__':\n" + text
    )
    return str(path)


@pytest.mark.parametrize("workers", ["None", "2"])
def test_serve_from_a_program(serve, tmp_path, workers):
    path = program(tmp_path, "    import fcgi\n    fcgi.serve(application, listen=sys.argv[2], workers=%s)\n" % workers)
    address = serve(command=(sys.executable, path))
    for _ in range(5):
        assert ask(address, {"SCRIPT_NAME": "/x"})[0] == b"Status: 200 OK\r\nX: -\r\n\r\n/x"


def test_as_flup(serve, tmp_path):
    path = program(
        tmp_path,
        "    from fcgi.flup import WSGIServer\n"
        "    WSGIServer(application, environ={'OWN': 'own'}, bindAddress=sys.argv[2].partition(':')[2]).run()\n",
    )
    address = serve(command=(sys.executable, path))
    assert ask(address, {"SCRIPT_NAME": "/x"})[0] == b"Status: 200 OK\r\nX: own\r\n\r\n/x"


def test_a_program_as_cgi_and_on_a_terminal(tmp_path):
    path = program(tmp_path, "    import fcgi\n    fcgi.serve(application)\n")
    cgi = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env={**environment(), "GATEWAY_INTERFACE": "CGI/1.1", "PATH_INFO": "/c"}
    )
    assert cgi.stdout == "Status: 200 OK\nX: -\n\n/c", cgi
    plain = python(path, stdin=subprocess.DEVNULL)
    assert (plain.stdout, plain.returncode) == ("Status: 200 OK\nX: -\n\n", 0), plain
    (tmp_path / "later.py").write_text("import fcgi\nasync def app(scope, receive, send): ...\nfcgi.serve(app)\n")
    later = python(str(tmp_path / "later.py"), stdin=subprocess.DEVNULL)
    assert later.returncode == 1 and "needs a server that is for it alone" in later.stderr, later


def test_an_accept_loop_without_a_server(tmp_path):
    path = tmp_path / "loop.py"
    path.write_text("import fcgi\nwhile fcgi.accept():\n    print('once')\nprint('end')\n")
    assert python(str(path)).stdout == "once\nend\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_starlette(serve, tmp_path, loop):
    (tmp_path / "star.py").write_text(
        "import asyncio, contextlib\n"
        "from starlette.applications import Starlette\n"
        "from starlette.responses import PlainTextResponse, StreamingResponse\n"
        "from starlette.routing import Route\n\n\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(app):\n    yield {'began': 'yes'}\n\n\n"
        "async def echo(request):\n"
        "    body = await request.body()\n"
        "    kind = type(asyncio.get_running_loop()).__module__.partition('.')[0]\n"
        "    return PlainTextResponse('%s %s %d' % (kind, request.state.began, len(body)))\n\n\n"
        "def in_thread(request):\n    return PlainTextResponse(request.path_params['name'])\n\n\n"
        "async def pieces(request):\n"
        "    async def made():\n        for number in range(3):\n            yield str(number)\n            await asyncio.sleep(0)\n"
        "    return StreamingResponse(made())\n\n\n"
        "routes = [Route('/echo', echo, methods=['POST']), Route('/to/{name}', in_thread), Route('/pieces', pieces)]\n"
        "app = Starlette(routes=routes, lifespan=lifespan)\n"
    )
    address = serve("--app", "star", "--interface", "asgi:" + loop, cwd=tmp_path)
    params = {"SCRIPT_NAME": "/echo", "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "200000", "HTTP_HOST": "localhost"}
    for _ in range(2):
        stdout, stderr, status = ask(address, params, b"x" * 200000)
        assert stdout.endswith(b"\r\n\r\n%s yes 200000" % loop.encode()) and status == 0, (stdout, stderr)
    for path, text in ("/to/you", b"you"), ("/pieces", b"012"):
        stdout, stderr, status = ask(address, {"SCRIPT_NAME": path, "HTTP_HOST": "localhost"})
        assert stdout.endswith(b"\r\n\r\n" + text) and status == 0, (stdout, stderr)


def test_serve_an_asynchronous_application(serve, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        "import sys\nimport fcgi\n\n\n"
        "async def application(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': repr((scope['path'], len(sys.argv))).encode()})\n\n\n"
        "fcgi.serve(application, listen=sys.argv[2])\n"
    )
    address = serve(command=(sys.executable, str(path)))
    for _ in range(2):
        assert ask(address, {"SCRIPT_NAME": "/x"})[0] == b"Status: 200 OK\r\n\r\n('/x', 3)"


@pytest.mark.parametrize("served", [["script.py"], ["--app", "wsgi_app:app"], ["--app", "asgi_app:app"]])
def test_reload(serve, tmp_path, served):
    """More is tested of the program."""
    (tmp_path / "own.py").write_text("text = b'first'\n")
    (tmp_path / "script.py").write_text("import own\nprint('Content-Type: text/plain\\n')\nprint(own.text.decode(), end='')\n")
    (tmp_path / "wsgi_app.py").write_text("import own\n\ndef app(environ, start):\n    start('200 OK', [])\n    return [own.text]\n")
    (tmp_path / "asgi_app.py").write_text(
        "import own\n\nasync def app(scope, receive, send):\n    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': own.text})\n"
    )
    address = serve("--reload", *served, cwd=tmp_path)
    assert ask(address, {})[0].endswith(b"\n\r\nfirst" if "--app" in served else b"\n\nfirst")
    (tmp_path / "own.py").write_text("text = b'other'\n")
    end = time.monotonic() + 60
    while not ask(address, {})[0].endswith(b"other"):
        assert time.monotonic() < end
        time.sleep(0.05)
