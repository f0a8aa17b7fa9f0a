"""ASGI 3: an event loop that serves one application, many requests at once.

The loop is uvloop where that is installed, otherwise asyncio's own; `--interface asgi:asyncio` and `asgi:uvloop` choose.
"""
import asyncio
import os
import sys
import traceback
from http import HTTPStatus
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

from fcgi import _application, _fcgi, _reload
from fcgi._lifespan import GRACE, VERSIONS, Failed, Lifespan, Renewal

REQUEST, READABLE, WRITABLE, ABORTED = range(4)
NEW, STARTED, SENDING, COMPLETE = range(4)
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
# Applications of scripts that the process has loaded from which it was forked, by their paths.
loaded = {}
# How often the server looks at its timeouts, in seconds.
TICK = 1.0


class Disconnected(OSError):
    """What `send` raises when nobody is there to read the answer."""


# ---------------------------------------------------------------- the application


def find(spec, script, is_certain, has_threads):
    """The application of `--app` or of a script; `None` when it is for another interface."""
    try:
        app = _application.load(spec) if spec is not None else loaded.pop(script, None) or of_script(script)
        if not is_certain and _application.interface(app) != "asgi":
            return None
    except Failed:
        raise
    except _application.NotFound as e:
        raise Failed("the application %s cannot be loaded: %s" % (spec or script, e)) from None
    except BaseException as e:
        traceback.print_exc()
        raise Failed("the application %s cannot be loaded: %s" % (spec or script, describe(e))) from None
    if has_threads:
        raise Failed("--threads is not for ASGI: one event loop serves all requests of a process")
    return app


def describe(exception):
    return traceback.format_exception_only(type(exception), exception)[-1].strip()


def of_script(path):
    """The application that a file gives, which is loaded as a module of its name."""
    folder, file = os.path.split(os.path.realpath(path))
    name = os.path.splitext(file)[0]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loader = SourceFileLoader(name, os.path.join(folder, file))
    module = module_from_spec(spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return _application.one_of(module)


# ---------------------------------------------------------------- the process


def serve(reactor, app, spec, script, arguments, first, *, event_loop, **options):
    """Serves an application until the server stops: the one that `--app` names, or a script's. With a first request, that has
    come already: its number and itself."""
    if script is not None:
        sys.argv = [script, *arguments]
    loop = new_loop(event_loop)
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(run(reactor, app, spec, script, first, **options))
    finally:
        close(loop)


def new_loop(kind):
    if kind != "asyncio":
        try:
            import uvloop

            return uvloop.new_event_loop()
        except ImportError:
            if kind == "uvloop":
                raise Failed("uvloop is not installed (--interface asgi:uvloop)") from None
    return asyncio.new_event_loop()


def close(loop):
    """Ends what is still running, as `asyncio.run` does."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def run(reactor, app, spec, script, first, *, shutdown_timeout, request_timeout, slow_after, display_errors, reload):
    lifespan = Lifespan(app)
    if not await has_started(lifespan, reactor):
        return
    # From here on requests are taken; until now they wait in the listener.
    file = os.path.basename(script or "")
    server = Server(reactor, lifespan, file, shutdown_timeout, request_timeout, slow_after, display_errors)
    if reload:
        server.renewal = renewal(server, spec, script)
    if first is not None:
        server.begin(*first)
    await server.run()
    if server.renewal is not None:
        await server.renewal.stop()
    await server.lifespan.stop()


async def has_started(lifespan, reactor):
    """Waits until the application has started; gives False when the server is told to stop before."""
    starting = asyncio.ensure_future(lifespan.start())
    while not (await asyncio.wait([starting], timeout=TICK))[0]:
        if reactor.is_to_drain:
            lifespan.task.cancel()
            await asyncio.wait([lifespan.task], timeout=GRACE)
            return False
    starting.result()
    return True


def renewal(server, spec, script):
    """What loads the application anew when its modules have changed."""
    if spec is not None:
        return Renewal(server, _reload.of_application, lambda generation: _application.load_anew(spec, generation))
    # The script itself was not imported when it was to be an ordinary one.
    _reload.watch(os.path.realpath(script))
    return Renewal(server, lambda: _reload.of_script(script), lambda _: of_script(script))


# ---------------------------------------------------------------- requests


class Server:
    """Turns the reactor, and runs the application for each request."""

    def __init__(self, reactor, lifespan, file, shutdown_timeout, request_timeout, slow_after, display_errors):
        self.reactor, self.lifespan = reactor, lifespan
        self.renewal = None
        self.shutdown_timeout, self.request_timeout = shutdown_timeout, request_timeout
        self.slow_after = slow_after
        self.display_errors = display_errors
        self.scopes = _fcgi.Scopes({"type": "http", "asgi": VERSIONS}, file)
        self.cycles = {}
        self.is_stopping = False
        self.loop = asyncio.get_running_loop()

    def begin(self, key, exchange, error=None):
        """Lets the application answer a request; with the text of an error, that is the answer."""
        cycle = self.cycles[key] = Cycle(self, key, exchange)
        cycle.task = self.loop.create_task(cycle.run() if error is None else cycle.fail(error))

    async def run(self):
        loop = self.loop
        self.stopped = loop.create_future()
        descriptor = self.reactor.fileno()
        loop.add_reader(descriptor, self.turn)
        self.timer = loop.call_later(TICK, self.tick)
        self.turn()
        try:
            await self.stopped
        finally:
            loop.remove_reader(descriptor)
            self.timer.cancel()

    def tick(self):
        self.timer = self.loop.call_later(TICK, self.tick)
        self.turn()

    def turn(self):
        try:
            serving, events = self.reactor.turn()
        except Exception as e:
            if not self.stopped.done():
                self.stopped.set_exception(e)
            return
        for kind, key, exchange in events:
            if kind == REQUEST:
                if self.renewal is None or not self.renewal.keeps(key, exchange):
                    self.begin(key, exchange)
            else:
                cycle = self.cycles.get(key)
                if cycle is not None:
                    cycle.tell(kind)
        if not serving:
            self.stop()
        elif not self.is_stopping and self.reactor.draining:
            self.is_stopping = True
            # A parent that counts the same seconds must not come first.
            patience = self.shutdown_timeout - min(1.0, self.shutdown_timeout / 10)
            self.loop.call_later(patience, self.cancel_all)

    def cancel_all(self):
        for cycle in list(self.cycles.values()):
            cycle.cancel(503)
        self.loop.call_later(GRACE, self.stop)

    def stop(self):
        if not self.stopped.done():
            self.stopped.set_result(None)


class Cycle:
    """One request and its answer."""

    __slots__ = ("server", "lifespan", "key", "exchange", "task", "phase", "has_body", "gone", "status", "readers", "writers")

    def __init__(self, server, key, exchange):
        self.server, self.lifespan = server, server.lifespan
        self.key, self.exchange = key, exchange
        self.phase, self.has_body, self.gone = NEW, True, False
        # Why it was cancelled.
        self.status = None
        self.readers, self.writers = [], []

    async def run(self):
        server = self.server
        timer = slow = None
        if server.request_timeout is not None:
            timer = server.loop.call_later(server.request_timeout, self.cancel, 504)
        if server.slow_after is not None:
            slow = server.loop.call_later(server.slow_after, self.tell_slow, server.loop.time())
        text, status = "", 500
        try:
            scope = server.scopes.of(self.exchange)
            scope["state"] = self.lifespan.state.copy()
            await self.lifespan.app(scope, self.receive, self.send)
            if self.phase != COMPLETE and not self.gone:
                what = "starting" if self.phase == NEW else "completing"
                text = "the application returned without %s its answer\n" % what
        except asyncio.CancelledError:
            status = self.status or 500
            text = {503: "the process stops", 504: "the request took too long"}.get(self.status, "it was cancelled") + "\n"
        except BaseException as e:
            if not (self.gone and comes_of_disconnect(e)):
                text = trace(e)
        finally:
            if timer is not None:
                timer.cancel()
            if slow is not None:
                slow.cancel()
            server.cycles.pop(self.key, None)
            self.end(text, status)

    async def fail(self, error):
        self.server.cycles.pop(self.key, None)
        self.end(error, 500)

    def end(self, text, status):
        """Ends what the application has not ended."""
        if text:
            self.exchange.write_error(text.encode("utf-8", "backslashreplace"))
            if self.gone or self.phase == COMPLETE:
                # There is nobody else to tell.
                sys.stderr.write(text)
        if self.phase != COMPLETE:
            self.phase = COMPLETE
            line = b"%d %s" % (status, REASONS[status])
            shown = text.encode("utf-8", "backslashreplace") if self.server.display_errors else b""
            header = b"Status: %s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\n" % (line, line)
            self.exchange.fail(header + shown)
        wake(self.readers)
        wake(self.writers)

    def tell_slow(self, since):
        """Writes where the application waits."""
        # The first frame is `run`.
        stack = "".join(traceback.StackSummary.from_list(waits(self.task.get_coro())[1:]).format())
        seconds = self.server.loop.time() - since
        self.server.reactor.tell_slow(self.exchange, seconds, stack.encode("utf-8", "backslashreplace"))

    def cancel(self, status):
        if self.status is None:
            self.status = status
        self.task.cancel()

    def tell(self, kind):
        """Something has changed for which somebody may be waiting."""
        if kind == ABORTED:
            self.gone = True
        if kind != WRITABLE:
            wake(self.readers)
        if kind != READABLE:
            wake(self.writers)

    def wait(self, waiting):
        future = self.server.loop.create_future()
        waiting.append(future)
        return future

    async def receive(self):
        exchange = self.exchange
        while self.has_body and not self.gone and self.phase != COMPLETE:
            try:
                part = exchange.read()
            except OSError:
                self.gone = True
                break
            if part is not None:
                body, self.has_body = part
                return {"type": "http.request", "body": body, "more_body": self.has_body}
            await self.wait(self.readers)
        while not self.gone and self.phase != COMPLETE:
            if exchange.is_aborted():
                self.gone = True
            else:
                await self.wait(self.readers)
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if self.phase == NEW:
            if kind != "http.response.start":
                raise RuntimeError("Expected ASGI message 'http.response.start', but got %r" % kind)
            status = message["status"]
            self.exchange.start(status, REASONS.get(status, b""), message.get("headers", ()))
            self.phase = STARTED
            return
        if self.phase == COMPLETE:
            raise RuntimeError("Unexpected ASGI message %r: the answer is complete" % kind)
        if kind != "http.response.body":
            raise RuntimeError("Expected ASGI message 'http.response.body', but got %r" % kind)
        if self.gone:
            raise Disconnected("the client has gone")
        more = message.get("more_body", False)
        self.phase = SENDING
        try:
            has_room = self.exchange.write(message.get("body", b""), more)
            while not has_room:
                await self.wait(self.writers)
                if self.gone:
                    raise Disconnected("the client has gone")
                has_room = self.exchange.go_on()
        except OSError as e:
            self.gone = True
            raise Disconnected("the client has gone") from e
        if not more:
            self.phase = COMPLETE
            wake(self.readers)


def waits(awaitable):
    """Where a coroutine waits, and those that it waits for: files, lines and functions, the outermost first."""
    stack = []
    while awaitable is not None:
        for kind, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(awaitable, kind + "_frame", None)
            if frame is not None:
                stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None))
                awaitable = getattr(awaitable, inner)
                break
        else:
            break
    return stack


def wake(waiting):
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


def comes_of_disconnect(exception):
    """Whether an application only passes on that its client has gone."""
    seen = set()
    while exception is not None and id(exception) not in seen:
        if isinstance(exception, Disconnected):
            return True
        seen.add(id(exception))
        exception = exception.__cause__ or exception.__context__
    return False


def trace(exception):
    """The traceback, from the application's first frame on."""
    frames = exception.__traceback__
    frames = frames.tb_next or frames
    return "".join(traceback.format_exception(type(exception), exception, frames))
