"""What the tests of ASGI serve: each path is a program. Files of the working directory say what it saw."""
import asyncio
import os

sent = 0
waiting = set()


def say(name, text=""):
    with open(name + ".new", "w") as file:
        file.write(text)
    os.rename(name + ".new", name)


async def until(name):
    while not os.path.exists(name):
        await asyncio.sleep(0.01)


async def answer(send, body=b"", status=200, headers=([b"content-type", b"text/plain"],)):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    await globals()["at_" + scope["path"].rpartition("/")[2].partition(" ")[0]](scope, receive, send)


async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    if os.path.exists("fail"):
        return await send({"type": "lifespan.startup.failed", "message": "no database"})
    scope["state"]["opened"] = ["once"]
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    say("shut-down")
    await send({"type": "lifespan.shutdown.complete"})


async def at_hello(scope, receive, send):
    await answer(send, b"hello")


async def at_scope(scope, receive, send):
    scope["headers"].sort()
    await answer(send, "\n".join("%s: %r" % item for item in sorted(scope.items())).encode())


async def at_state(scope, receive, send):
    seen = scope["state"].get("mine"), scope["state"]["opened"]
    scope["state"]["mine"] = 1
    await answer(send, repr(seen).encode())


async def at_loop(scope, receive, send):
    await answer(send, type(asyncio.get_running_loop()).__module__.partition(".")[0].encode())


async def at_echo(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-length", scope["query_string"])]})
    parts, more = 0, True
    while more:
        message = await receive()
        parts, more = parts + 1, message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    await send({"type": "http.response.body", "body": b"|"})
    # What comes behind the answer.
    say("after", (await receive())["type"])


async def at_length(scope, receive, send):
    """Says a length, and sends these pieces."""
    length, *pieces = scope["query_string"].split(b"+")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", length)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def at_changes(scope, receive, send):
    """What another request of its own changed, it does not see."""
    seen = scope["asgi"].get("mine"), scope.get("mine"), (b"mine", b"") in scope["headers"]
    scope["asgi"]["mine"] = scope["mine"] = True
    scope["headers"].append((b"mine", b""))
    await answer(send, repr(seen).encode())


async def at_meet(scope, receive, send):
    """Answers when all of them have come."""
    me, everybody = scope["query_string"], int(dict(scope["headers"])[b"x-all"])
    waiting.add(me)
    while len(waiting) < everybody:
        await asyncio.sleep(0.01)
    await answer(send, me)


async def at_big(scope, receive, send):
    global sent
    await send({"type": "http.response.start", "status": 200, "headers": []})
    piece = b"x" * 100_000
    for _ in range(500):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        sent += len(piece)
    await send({"type": "http.response.body"})


async def at_sent(scope, receive, send):
    await answer(send, str(sent).encode())


async def at_large(scope, receive, send):
    await answer(send, bytearray(b"y" * 5_000_000))


async def at_leave(scope, receive, send):
    """Until the client has gone."""
    await receive()
    say("came")
    say("left", (await receive())["type"])
    try:
        await answer(send, b"nobody reads this")
    except OSError as e:
        say("told", type(e).__name__)


async def at_both(scope, receive, send):
    """Listens for the client's leaving while it answers, as frameworks do."""
    await receive()
    listener = asyncio.ensure_future(receive())
    await answer(send, b"both")
    say("listened", (await listener)["type"])


async def at_raise(scope, receive, send):
    raise ValueError("on purpose")


async def at_raise_begun(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError("on purpose")


async def at_raise_late(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("on purpose")


async def at_body_first(scope, receive, send):
    await send({"type": "http.response.body", "body": b"x"})


async def at_twice(scope, receive, send):
    await answer(send, b"once")
    await answer(send, b"again")


async def at_nothing(scope, receive, send):
    pass


async def at_bad_header(scope, receive, send):
    await answer(send, headers=[(b"x", b"a\r\nSet-Cookie: b")])


async def at_slow(scope, receive, send):
    say("begun")
    await until("go")
    await answer(send, b"slow")


async def at_stuck(scope, receive, send):
    say("begun")
    await asyncio.sleep(1000)


async def at_pid(scope, receive, send):
    await answer(send, b"%d" % os.getpid())


async def at_block(scope, receive, send):
    say("blocked")
    while True:
        pass
