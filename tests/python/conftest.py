"""Servers of the installed wheel, and requests to them."""

import os
import socket
import struct
import subprocess
import sys
import sysconfig
import time

import pytest

COMMAND = os.path.join(sysconfig.get_path("scripts"), "fcgi-python")


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FCGI_"))}


def run(*words, **named):
    """Runs the command `fcgi-python`."""
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=60, env=environment(), **named)


def python(*words, **named):
    """Runs the real interpreter."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, env=environment(), **named)


def record(kind, content):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def pair(name, value):
    return struct.pack(">II", len(name) | 1 << 31, len(value) | 1 << 31) + name + value


def ask(address, params, body=b"", role=1, data=None):
    """Sends one request, with a file if it is for a filter; gives standard output, standard error and the exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(address)
        names = {"REQUEST_METHOD": "GET", "QUERY_STRING": "", **params}
        pairs = b"".join(pair(name.encode(), value.encode()) for name, value in names.items())
        connection.sendall(record(1, bytes([0, role, 0, 0, 0, 0, 0, 0])) + record(4, pairs) + record(4, b""))
        for start in range(0, len(body), 60000):
            connection.sendall(record(5, body[start : start + 60000]))
        if role != 2:
            connection.sendall(record(5, b""))
        if data is not None:
            connection.sendall(record(8, data) + record(8, b""))
        streams = {6: b"", 7: b"", 3: b""}
        with connection.makefile("rb") as answer:
            while header := answer.read(8):
                _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", header)
                streams[kind] += answer.read(length)
                answer.read(padding)
    return streams[6], streams[7], struct.unpack(">I", streams[3][:4])[0]


def listens(address):
    """Whether somebody answers there: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(address) == 0


@pytest.fixture
def serve(tmp_path):
    """Starts servers, which end with the test."""
    started = []

    def start(*words, command=(COMMAND,), cwd=None):
        address = str(tmp_path / ("s%d" % len(started)))
        log = open(address + ".log", "wb")
        server = subprocess.Popen(
            [*command, "--listen", "unix:" + address, *words], stderr=log, stdin=subprocess.DEVNULL, env=environment(), cwd=cwd
        )
        started.append(server)
        for _ in range(500):
            if listens(address):
                return address
            assert server.poll() is None, open(address + ".log").read()
            time.sleep(0.02)
        raise AssertionError("the server does not listen")

    yield start
    for server in started:
        server.terminate()
        assert server.wait(30) == 0
