"""What clients do to a server that they should not: refused, and nothing is left behind.

They leave in the middle, send garbage or 100 MB, are too many, ask for the session of another, say nothing.
"""

# ruff: noqa: D103

import asyncio
import contextlib
import http.client
import json
import time

import psutil
import pytest
from server_process import serving

pytestmark = [
    pytest.mark.peers("openenv"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

SESSIONS = 4
TASKS = "procedural:brief_event?level=0&duration_s=60&count=50&size=64x36"
HUGE = 100_000_000
COMMAND = ("-m", "videogym.openenv", "--tasks", TASKS)


@pytest.fixture(scope="module")
def server():
    with serving(*COMMAND, "--sessions", str(SESSIONS)) as server:
        yield server


def play(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 300))


def client(server):
    from videogym.openenv import VideoEnv

    return VideoEnv(base_url=server.url)


def connect(server, path="/ws"):
    """A bare connection, for what OpenEnv's client would not send."""
    from websockets.asyncio.client import connect

    url = f"ws://127.0.0.1:{server.port}{path}"
    return connect(url, max_size=None, proxy=None, ping_interval=None, compression=None)


def look():
    from videogym.openenv import VideoAction

    return VideoAction(tool="crop", arguments={"start_s": 10, "end_s": 14})


async def fill(server, count):
    """So many sessions at once, each of which plays."""
    async with contextlib.AsyncExitStack() as stack:
        for seed in range(count):
            env = await stack.enter_async_context(client(server))
            assert (await env.reset(seed=seed)).observation.content


def held(server):
    """What the process holds: threads, open files and sockets, and bytes of memory."""
    process = psutil.Process(server.process.pid)
    return process.num_threads(), process.num_fds(), process.memory_info().rss


async def settled(server, threads, files):
    """Wait until no more is held than that; sessions end a moment after their connections."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        now = held(server)
        if now[0] <= threads and now[1] <= files:
            return now
        await asyncio.sleep(0.1)
    return held(server)


async def leave_in_the_middle(server):
    """Gone without a word, right after asking for frames."""
    async with connect(server) as socket:
        await socket.send(json.dumps({"type": "reset", "data": {"seed": 1}}))
        await socket.recv()
        await socket.send(json.dumps({"type": "step", "data": look().model_dump()}))
        socket.transport.abort()


async def leave_at_once(server):
    async with connect(server) as socket:
        socket.transport.abort()


GARBAGE = {
    "no JSON": "{",
    "not an object": "[1, 2]",
    "a number": "7",
    "a long number": "7" * 5000,
    "nested deeply": "[" * 100_000,
    "bytes": b"\x00\xff" * 100,
    "an unknown message": '{"type": "explode"}',
    "no action": '{"type": "step", "data": {}}',
    "arguments that are none": '{"type": "step", "data": {"tool": "crop", "arguments": [1]}}',
    "a further field": '{"type": "step", "data": {"tool": "crop", "reward": 1.0}}',
    "half a character": '{"type": "\\ud800"}',
    "MCP": '{"type": "mcp", "data": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}}',
}


async def say_garbage(server, garbage):
    """It is told that this is wrong, whether the session survives or not."""
    from websockets.exceptions import ConnectionClosed

    async with connect(server) as socket:
        await socket.send(garbage)
        with contextlib.suppress(ConnectionClosed):
            told = json.loads(await socket.recv())
            assert told["type"] == "error" or "error" in told["data"], told


async def send_too_much(server):
    """The connection is closed as too big (1009), long before all of it is read."""
    from websockets.exceptions import ConnectionClosed

    async with connect(server) as socket:
        with pytest.raises(ConnectionClosed):
            await socket.send("x" * HUGE)
            await socket.recv()
        assert socket.close_code in (1006, 1009)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_and_its_session_is_given_back(server, garbage):
    async def more_than_there_are_places():
        for _ in range(SESSIONS + 1):
            await say_garbage(server, garbage)
        await fill(server, SESSIONS)

    play(more_than_there_are_places())


def test_whatever_clients_do_nothing_is_left_behind(server):
    """A good client's episode goes on through all of it, and threads, sockets and memory are as before."""

    async def abuse():
        await fill(server, SESSIONS)  # what every session brings into memory is there
        async with client(server) as env:
            begun = await env.reset(seed=3)
            threads, files, memory = held(server)
            for _ in range(10):
                await leave_at_once(server)
                await leave_in_the_middle(server)
                for garbage in GARBAGE.values():
                    await say_garbage(server, garbage)
            for _ in range(3):
                await send_too_much(server)
            now = await settled(server, threads, files)
            assert now[0] <= threads, f"{now[0] - threads} threads are left"
            assert now[1] <= files, f"{now[1] - files} sockets or files are left"
            assert now[2] - memory < HUGE, f"{(now[2] - memory) >> 20} MiB are left"
            state, result = await env.state(), await env.step(look())
            assert state.step_count == 0 and result.observation.error_code == ""
            assert begun.observation.content, "the good client's episode is gone"
        await fill(server, SESSIONS)

    play(abuse())


def test_one_too_many_is_told_so_and_may_come_later(server):
    async def one_too_many():
        async with contextlib.AsyncExitStack() as stack:
            for seed in range(SESSIONS):
                await (await stack.enter_async_context(client(server))).reset(seed=seed)
            late = await stack.enter_async_context(client(server))
            with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
                await late.reset(seed=0)
        await fill(server, SESSIONS)

    play(one_too_many())


def test_a_plain_request_that_plays_is_a_session_too(server):
    """Where all are taken it is refused, and what is served is told all the same."""

    async def all_taken():
        async with contextlib.AsyncExitStack() as stack:
            for seed in range(SESSIONS):
                await (await stack.enter_async_context(client(server))).reset(seed=seed)
            return [await asyncio.to_thread(post, server, path, "{}") for path in ("/reset", "/step")]

    assert play(all_taken()) == [503, 503]
    play(fill(server, SESSIONS))
    assert post(server, "/reset", "{}") == 200


def test_a_connection_is_one_too_many_where_plain_requests_have_all_places():
    """It is told as OpenEnv tells it, nothing is played for it, and it may come later."""
    from videogym.openenv.limits import Limited
    from videogym.serving import Limits

    played, sent, over = [], [], asyncio.Event()

    async def app(scope, receive, send):
        played.append(scope["type"])
        if scope["type"] == "http":
            await over.wait()

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def both():
        limited = Limited(app, Limits(sessions=1))
        socket = {"type": "websocket", "path": "/ws", "query_string": b""}
        plain = {"type": "http", "path": "/reset", "headers": []}
        resetting = asyncio.create_task(limited(plain, receive, send))
        await asyncio.sleep(0)
        await limited(socket, receive, send)
        assert played == ["http"]
        over.set()
        await resetting
        await limited(socket, receive, send)
        assert played == ["http", "websocket"]

    play(both())
    assert [message["type"] for message in sent] == [
        f"websocket.{it}" for it in ("accept", "send", "close")
    ]
    told = json.loads(sent[1]["text"])
    assert told["type"] == "error" and told["data"]["code"] == "CAPACITY_REACHED"


@pytest.mark.parametrize(
    "path", ["/ws?session_id=00000000-0000-0000-0000-000000000000", "/ws?a=1&session_id=x", "/mcp"]
)
def test_the_session_of_another_cannot_be_asked_for(server, path):
    from websockets.exceptions import InvalidStatus

    async def ask():
        with pytest.raises(InvalidStatus) as caught:
            async with connect(server, path):
                pass
        return caught.value.response.status_code

    assert play(ask()) == 403


def post(server, path, body, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        try:
            connection.request("POST", path, body, {"content-type": "application/json", **dict(headers)})
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent; the answer can still be read
        return connection.getresponse().status
    finally:
        connection.close()


def test_sessions_over_http_are_refused(server):
    """OpenEnv makes them by this call, and anybody who knows their id could join or close them."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "openenv/session/create", "params": {}}
    assert post(server, "/mcp", json.dumps(call)) == 404


@pytest.mark.parametrize("how", ["told before", "in chunks"])
def test_a_huge_body_is_refused_unread(server, how):
    before = held(server)[2]
    chunk = b" " * 100_000
    body = (
        chunk * (HUGE // len(chunk)) if how == "told before" else (chunk for _ in range(HUGE // len(chunk)))
    )
    with contextlib.suppress(ConnectionError):  # closed while we still send: refused as well
        assert post(server, "/reset", body) == 413
    assert held(server)[2] - before < HUGE / 2
    assert post(server, "/reset", "{}") == 200


def test_a_client_that_says_nothing_loses_its_session():
    from websockets.exceptions import ConnectionClosed

    async def silent(server):
        async with connect(server) as socket:
            await socket.send(json.dumps({"type": "reset", "data": {"seed": 1}}))
            await socket.recv()
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
        assert caught.value.rcvd.reason == "no message came within 1.5 s"
        await fill(server, 1)

    with serving(
        "-m", "videogym.openenv", "--tasks", TASKS, "--sessions", "1", "--idle-s", "1.5"
    ) as server:
        play(silent(server))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "LONGTV"], "unknown recipe 'LONGTV'"),
        (["--grammar", "video_mtr/strict"], "has no tools"),
        (["--sessions", "0"], "sessions must be positive, got 0"),
        (["--idle-s", "nan"], "idle_s must be positive, got nan"),
        (["--message-bytes", "-1"], "message_bytes must be positive, got -1"),
        (["--traces", "no/such/folder.jsonl"], "no/such/folder.jsonl"),
        (["--tasks", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_a_wrong_option_ends_the_server_with_one_line(options, said, capsys):
    from videogym.openenv.__main__ import main

    assert main(options) == 2
    out, error = capsys.readouterr()
    assert out == "" and said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("port", ["-1", "65536", "0000099999", "", "eighty", "9" * 5000])
def test_a_port_that_is_none_is_refused(port, capsys):
    from videogym.openenv.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main([f"--port={port}"])
    assert caught.value.code == 2
    assert "a port is a whole number up to 65535, got" in capsys.readouterr().err


def test_episodes_of_all_sessions_are_stored(tmp_path):
    """Whole ones as they end, left ones when their client leaves."""
    from videogym.openenv import VideoAction
    from videogym.traces import read_traces

    async def episode(server, seed, leave):
        async with client(server) as env:
            await env.reset(seed=seed)
            await env.step(look())
            if not leave:
                await env.step(VideoAction(tool="answer", arguments={"text": "A"}))

    async def episodes(server):
        await asyncio.gather(*(episode(server, seed, seed % 2) for seed in range(6)))

    with serving(
        "-m", "videogym.openenv", "--tasks", TASKS, "--traces", str(tmp_path / "played.jsonl")
    ) as server:
        play(episodes(server))
    stored = read_traces(tmp_path / "played.jsonl").episodes
    assert (
        sorted((trace.ending, trace.cut) for trace in stored) == [("", "left")] * 3 + [("answered", "")] * 3
    )
