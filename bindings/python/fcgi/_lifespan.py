"""The lifespan of an ASGI application: its beginning and end, and how a new one takes the place of one whose modules have changed
(`--reload`)."""
import asyncio
import sys
import traceback

VERSIONS = {"version": "3.0", "spec_version": "2.4"}
# How long what was cancelled because the process stops has to end.
GRACE = 1.0


class Failed(Exception):
    """The application cannot be served; the text says all."""


class Lifespan:
    """Tells the application when the process begins and stops, if it wants to know."""

    def __init__(self, app):
        self.app, self.state = app, {}
        self.failure = None
        loop = asyncio.get_running_loop()
        self.started, self.stopping, self.stopped = (loop.create_future() for _ in range(3))
        self.asked = False

    async def start(self):
        self.task = asyncio.get_running_loop().create_task(self.run())
        await self.started
        if self.failure is not None:
            await asyncio.wait([self.task], timeout=GRACE)
            text = self.failure.strip()
            if "\n" in text:
                print(text, file=sys.stderr)
            raise Failed("the application's startup failed%s" % (text and ": " + text.splitlines()[-1]))

    async def stop(self):
        if self.task.done():
            return
        self.stopping.set_result(None)
        await self.stopped
        if self.failure is not None:
            print("the application's shutdown failed: " + self.failure, file=sys.stderr)
        await asyncio.wait([self.task], timeout=GRACE)

    async def run(self):
        try:
            await self.app({"type": "lifespan", "asgi": VERSIONS.copy(), "state": self.state}, self.receive, self.send)
        except asyncio.CancelledError:
            pass
        except BaseException:
            # Without a question it says that the application knows nothing of all this.
            if self.asked and self.failure is None:
                if not self.started.done():
                    print("the application's startup ended in an exception; it is served nevertheless", file=sys.stderr)
                traceback.print_exc()
        finally:
            for future in (self.started, self.stopped):
                if not future.done():
                    future.set_result(None)

    async def receive(self):
        if not self.asked:
            self.asked = True
            return {"type": "lifespan.startup"}
        await asyncio.shield(self.stopping)
        return {"type": "lifespan.shutdown"}

    async def send(self, message):
        kind = message["type"]
        _, phase, end = (kind + "..").split(".")[:3]
        future = {"startup": self.started, "shutdown": self.stopped}.get(phase)
        if future is None or end not in ("complete", "failed") or not kind.startswith("lifespan."):
            raise RuntimeError("Unexpected ASGI message %r" % kind)
        if future.done():
            raise RuntimeError("ASGI message %r came twice" % kind)
        if end == "failed":
            self.failure = message.get("message", "")
        future.set_result(None)


class Renewal:
    """Lets an application that is loaded anew take requests, while the one before it ends what it has begun."""

    def __init__(self, server, generation, load):
        self.server, self.generation, self.load = server, generation, load
        self.loaded = generation()
        # Requests that came while the new one starts, and the task that starts it.
        self.waiting, self.task = [], None
        self.leaving = set()

    def keeps(self, key, exchange):
        """Whether a new request has to wait, because modules have changed."""
        if self.task is None:
            generation = self.generation()
            if generation == self.loaded:
                return False
            self.task = self.server.loop.create_task(self.renew(generation))
        self.waiting.append((key, exchange))
        return True

    async def renew(self, generation):
        server, error = self.server, None
        try:
            lifespan = Lifespan(self.load(generation))
            await lifespan.start()
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            # It is tried again with the next request.
            error = "".join(traceback.format_exception(type(e), e, e.__traceback__))
        else:
            task = server.loop.create_task(self.leave(server.lifespan))
            self.leaving.add(task)
            task.add_done_callback(self.leaving.discard)
            server.lifespan, self.loaded = lifespan, generation
        waiting, self.waiting, self.task = self.waiting, [], None
        for key, exchange in waiting:
            server.begin(key, exchange, error)

    async def leave(self, lifespan):
        """Ends an application once its requests have ended."""
        while tasks := [c.task for c in self.server.cycles.values() if c.lifespan is lifespan]:
            await asyncio.wait(tasks)
        await lifespan.stop()

    async def stop(self):
        if self.leaving:
            await asyncio.wait(list(self.leaving))
