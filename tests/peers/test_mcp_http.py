"""Real MCP clients over HTTP: every session plays an episode of its own, within the server's limits."""

# ruff: noqa: D103

import asyncio
import http.client
import json
import time
import urllib.request

import pytest
from server_process import serving

from videogym import VideoQAEnv
from videogym.serving import as_base64_jpeg
from videogym.tool_episode import ToolEpisode
from videogym.traces import read_traces

pytestmark = [pytest.mark.peers("mcp", "anyio"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SESSIONS = 8
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=40&size=64x36"
# A look at just the evidence: IoU 1, where the skim of 60 s had 3 / 60, at weight 0.5.
LOOK = 0.5 * 57 / 60
COMMAND = ("-m", "videogym.mcp_server", "--transport", "http", "--tasks", TASKS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    traces = tmp_path_factory.mktemp("mcp") / "played.jsonl"
    with serving(*COMMAND, "--sessions", str(SESSIONS), "--traces", str(traces), path="/mcp") as server:
        server.traces = traces
        yield server


@pytest.fixture(scope="module")
def tasks():
    return VideoQAEnv(TASKS).tasks


def play(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 300))


def client(server, query="", mode="auto"):
    from mcp import Client

    return Client(f"{server.url}/mcp{query}", mode=mode)


def content(parts):
    return [part if isinstance(part, str) else as_base64_jpeg(part) for part in parts]


def received(result):
    return [block.text if block.type == "text" else block.data for block in result.content]


async def episode(server, task, right, mode):
    """One session, compared call by call with the same episode played in this process."""
    alone = ToolEpisode(VideoQAEnv(TASKS))
    answer = task.answer if right else next(letter for letter in task.letters if letter != task.answer)
    look = {"start_s": task.evidence[0].start_s, "end_s": task.evidence[0].end_s}
    async with client(server, f"?task_id={task.task_id}", mode) as mcp:
        asked = await mcp.call_tool("question", {})
        assert received(asked) == content(alone.begin(task_id=task.task_id).parts)
        looked = await mcp.call_tool("crop", look)
        assert received(looked) == content(alone.call("crop", look).parts), "another session's frames"
        answered = await mcp.call_tool("answer", {"text": answer})
    paid = [result.meta["videogym/reward"] for result in (asked, looked, answered)]
    # What the look was paid is taken back by the gate when the answer is wrong.
    assert paid == pytest.approx([0.0, LOOK, 1.0 if right else -LOOK])
    assert answered.meta["videogym/is_success"] == right


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_sessions_at_once_see_their_own_episodes(server, tasks, mode):
    """``auto`` asks for the protocol without sessions first and falls back."""

    async def everything():
        free = asyncio.Semaphore(SESSIONS)

        async def session(number):
            async with free:
                await episode(server, tasks[number], number % 2 == 0, mode)

        await asyncio.gather(*(session(number) for number in range(3 * SESSIONS)))

    play(everything())


def test_calls_sent_at_once_in_a_session_are_turns_one_after_the_other(server):
    async def at_once():
        async with client(server, "?seed=1") as mcp:
            return await asyncio.gather(
                *(mcp.call_tool("crop", {"start_s": start, "end_s": start + 2}) for start in (0, 10, 20))
            )

    results = play(at_once())
    assert sorted(int(received(result)[-1].split()[0]) for result in results) == [3, 4, 5]


def test_an_address_names_the_task_by_seed(server):
    async def asked(seed):
        async with client(server, f"?seed={seed}") as mcp:
            return received(await mcp.call_tool("question", {}))

    async def three():
        return [await asked(5), await asked(5), await asked(6)]

    first, again, other = play(three())
    assert first == again != other


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?task_id=nobody", "no task 'nobody'"),
        ("?seed=-1", "got '-1'"),
        ("?seed=", "got ''"),
        ("?seed=" + "9" * 400, "seed is a whole number"),
        ("?level=3", "unknown ['level'] in the address; known: seed, task_id"),
    ],
)
def test_a_wrong_address_is_told_so(server, query, said):
    from mcp.shared.exceptions import MCPError

    async def call():
        async with client(server, query) as mcp:
            with pytest.raises(MCPError) as caught:
                await mcp.call_tool("question", {})
            return str(caught.value)

    told = play(call())
    assert told.startswith("no episode begins: ") and said in told


HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def post(server, body, **headers):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        try:
            connection.request("POST", "/mcp", body, {**HEADERS, **headers})
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent; the answer can still be read
        return connection.getresponse().status
    finally:
        connection.close()


INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "bare", "version": "1"},
        },
    }
).encode()
CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "question", "arguments": {}}}
).encode()


def test_what_is_no_session_is_refused(server):
    """Garbage, a body that is too long, no session, and one that is another's or nobody's."""
    assert post(server, b"{") == 400
    assert post(server, b" " * ((1 << 20) + 1)) == 413
    assert post(server, CALL) == 400
    assert post(server, CALL, **{"mcp-session-id": "0" * 32}) == 404


def test_one_too_many_is_refused_and_places_are_given_back(server):
    async def fill():
        async def hold(started, leave):
            async with client(server, "?seed=1", "legacy") as mcp:
                await mcp.call_tool("question", {})
                await started.wait()
                await leave.wait()

        started, leave = asyncio.Barrier(SESSIONS + 1), asyncio.Event()
        held = [asyncio.create_task(hold(started, leave)) for _ in range(SESSIONS)]
        await started.wait()
        late = await asyncio.to_thread(post, server, INITIALIZE)
        leave.set()
        await asyncio.gather(*held)
        return late

    assert [play(fill()), play(fill())] == [503, 503], "places are not given back"


def test_a_session_that_is_left_is_stored_as_left(server):
    async def leave():
        async with client(server, "?seed=3") as mcp:
            await mcp.call_tool("crop", {"start_s": 1, "end_s": 2})

    def left():
        return sum(trace.cut == "left" for trace in read_traces(server.traces).episodes)

    before = left()
    play(leave())
    assert left() == before + 1


def test_a_session_whose_client_is_gone_is_ended():
    """One that left without a word; a connected client keeps its session, however long it thinks."""
    with serving(*COMMAND, "--idle-s", "0.5", path="/mcp") as server:
        request = urllib.request.Request(f"{server.url}/mcp", INITIALIZE, HEADERS)
        with urllib.request.urlopen(request, timeout=60) as answer:
            session = answer.headers["mcp-session-id"]
        end = time.monotonic() + 60
        while post(server, CALL, **{"mcp-session-id": session}) != 404:
            assert time.monotonic() < end, "the session is still there"
            time.sleep(2)
