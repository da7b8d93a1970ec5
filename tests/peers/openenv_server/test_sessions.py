"""OpenEnv's client plays against our server in a process of its own: many sessions, none sees another's.

What a session should see is played here, in this process, by `ToolEpisode`; what it should be paid is
worked out by hand.
"""

# ruff: noqa: D103

import asyncio
import json
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
from server_process import serving

from videogym import VideoQAEnv
from videogym.tool_episode import ToolEpisode

pytestmark = [
    pytest.mark.peers("openenv"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

SESSIONS, EPISODES = 16, 100
TASKS = f"procedural:brief_event?level=0&duration_s=60&event_s=3&count={EPISODES}&size=64x36"
# A look at just the evidence: IoU 1, where the skim of 60 s had 3 / 60, at weight 0.5.
LOOK = 0.5 * 57 / 60


@pytest.fixture(scope="module")
def server():
    with serving("-m", "videogym.openenv", "--tasks", TASKS, "--sessions", str(SESSIONS)) as server:
        yield server


@pytest.fixture(scope="module")
def tasks():
    return VideoQAEnv(TASKS).tasks


def play(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 300))


def client(server):
    from videogym.openenv import VideoEnv

    return VideoEnv(base_url=server.url)


def call(tool, **arguments):
    from videogym.openenv import VideoAction

    return VideoAction(tool=tool, arguments=arguments)


def script(task, number):
    """What episode ``number`` calls, and what each call pays: looks, answers right or wrong, bad calls."""
    start_s, end_s = task.evidence[0].start_s, task.evidence[0].end_s
    wrong = next(letter for letter in task.letters if letter != task.answer)
    look = ("crop", {"start_s": start_s, "end_s": end_s}, LOOK)
    right = ("answer", {"text": task.answer}, 1.0)
    # What the look was paid is taken back by the gate when the answer is wrong.
    miss = ("answer", {"text": wrong}, -LOOK)
    bad = ("crop", {"start_s": 9, "end_s": 3}, 0.0)
    return [[look, right], [look, miss], [bad, look, right], [right]][number % 4]


def expected(task, calls):
    """The texts and frames of an episode that is played alone, as they go over the wire."""
    from videogym.openenv.models import content_of

    episode = ToolEpisode(VideoQAEnv(TASKS))
    replies = [
        episode.begin(task_id=task.task_id),
        *(episode.call(name, given) for name, given, _ in calls),
    ]
    return [content_of(reply.parts) for reply in replies]


async def play_episode(env, task, number, together):
    """One episode of one session, compared call by call with what it should be."""
    calls = script(task, number)
    seen = expected(task, calls)
    result = await env.reset(task_id=task.task_id, episode_id=f"episode-{number}")
    assert result.reward is None and not result.done
    assert result.observation.content == seen[0], "another episode's question or frames"
    await together()
    for (name, arguments, due), content in zip(calls, seen[1:], strict=True):
        result = await env.step(call(name, **arguments))
        assert result.observation.content == content, "another episode's frames"
        assert result.reward == pytest.approx(due), f"{name} of episode {number}"
    state = await env.state()
    assert (state.task_id, state.episode_id) == (task.task_id, f"episode-{number}")
    assert (state.step_count, state.ending) == (len(calls), "answered")
    assert result.done and result.metadata["is_success"] == (number % 4 != 1)
    return next(part.data for part in seen[0] if part.type == "image")


def test_a_hundred_episodes_by_sixteen_sessions_at_once(server, tasks):
    async def everything():
        start, first = asyncio.Barrier(SESSIONS), []

        async def session(mine):
            async with client(server) as env:
                for place, number in enumerate(mine):
                    # In the first round all sixteen have begun before any goes on.
                    wait = start.wait if place == 0 else _at_once
                    first.append(await play_episode(env, tasks[number], number, wait))

        await asyncio.gather(*(session(range(s, EPISODES, SESSIONS)) for s in range(SESSIONS)))
        return first

    first = play(everything())
    assert len(first) == EPISODES
    assert len(set(first)) > EPISODES / 2, "the videos are alike: a mix-up would not be seen"


async def _at_once():
    pass


def test_frames_arrive_as_pixels_each_after_its_time(server, tasks):
    async def look():
        async with client(server) as env:
            await env.reset(task_id=tasks[3].task_id)
            return (await env.step(call("crop", start_s=10, end_s=12))).observation.parts()

    *shown, limits = play(look())
    assert [shown[0], shown[-2], len(shown)] == ["[10.00 s]", "[12.00 s]", 8]  # 2 s at 2 fps
    assert limits == "5 turns are left. 60 more frames can be shown."
    store = VideoQAEnv(TASKS).store
    for time_s, pixels in zip(shown[0::2], shown[1::2], strict=True):
        (true,) = store.frames(
            tasks[3].video, [float(time_s.strip("[] s"))], size=pixels.shape[1::-1]
        ).pixels
        assert np.abs(pixels.astype(int) - true).mean() < 8, "not the frame of that time"


def test_the_tools_are_told_once_with_schemas(server):
    async def ask():
        async with client(server) as env:
            begun = await env.reset(seed=1)
            return begun.observation.tools, (await env.step(call("answer", text="A"))).observation.tools

    tools, later = play(ask())
    assert [tool["function"]["name"] for tool in tools] == ["crop", "answer"] and later == []
    assert tools[0]["function"]["parameters"]["required"] == ["start_s", "end_s"]


def test_one_seed_draws_one_task_for_a_group(server):
    async def drawn(seed):
        async with client(server) as env:
            await env.reset(seed=seed)
            return (await env.state()).task_id

    async def group():
        return await asyncio.gather(*(drawn(seed) for seed in (5, 5, 5, 6, 7, 8)))

    same, others = (found := play(group()))[:3], found[3:]
    assert len(set(same)) == 1 and len(set(others)) > 1


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("no_such_tool", {}, "unknown_tool"),
        ("", {}, "unknown_tool"),
        ("crop", {"start_s": "9", "end_s": 10}, "type"),
        ("crop", {"start_s": 9}, "required"),
        ("crop", {"start_s": 9, "end_s": 3}, "order"),
        ("crop", {"start_s": float("nan"), "end_s": 3}, "malformed_call"),
        ("answer", {"text": "Z"}, "unknown_option"),
        ("\ud800", {"a": "\udfff"}, "unknown_tool"),
        ("answer", {"text": "A" * 100_000}, "answer_length"),
    ],
)
def test_a_bad_call_is_a_turn_and_is_told_why(server, tool, arguments, code):
    async def bad_call():
        async with client(server) as env:
            await env.reset(seed=0)
            result = await env.step(call(tool, **arguments))
            return result, await env.state()

    result, state = play(bad_call())
    assert result.reward == 0.0 and not result.done and state.step_count == 1
    assert result.observation.content[0].text.startswith("Refused.")
    assert result.observation.error_code == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task_id": "nobody"}, "no task 'nobody'"),
        ({"task_id": 3}, "task_id is text, got 3"),
        ({"seed": -1}, "seed is a whole number, not negative, got -1"),
        ({"seed": "one"}, "got 'one'"),
        ({"seed": 1.5}, "got 1.5"),
        ({"seed": True}, "got True"),
        ({"episode_id": "e" * 256}, "episode_id is text of up to 255 characters"),
        ({"level": 3}, "unknown reset arguments ['level']; known: seed, episode_id, task_id"),
    ],
)
def test_a_wrong_reset_is_refused_and_the_session_lives(server, arguments, said):
    async def wrong():
        async with client(server) as env:
            with pytest.raises(RuntimeError) as caught:
                await env.reset(**arguments)
            return str(caught.value), await env.reset(seed=0)

    told, begun = play(wrong())
    assert said in told and begun.observation.content


@pytest.mark.parametrize("arguments", [{"task_id": "nobody"}, {"seed": -1}, {"level": 3}])
def test_a_refused_reset_leaves_no_episode(server, arguments):
    """The one before was stored as left: played on, it would be stored twice."""

    async def wrong():
        async with client(server) as env:
            await env.reset(seed=0, episode_id="before")
            await env.step(call("crop", start_s=9, end_s=10))
            with pytest.raises(RuntimeError):
                await env.reset(**arguments)
            with pytest.raises(RuntimeError, match="no episode yet: reset first"):
                await env.step(call("answer", text="A"))
            return await env.state()

    state = play(wrong())
    assert (state.episode_id, state.task_id, state.step_count) == (None, None, 0)


def test_nothing_is_played_before_a_reset_or_after_the_end(server):
    async def early_and_late():
        async with client(server) as env:
            before = await env.state()
            with pytest.raises(RuntimeError, match="no episode yet: reset first"):
                await env.step(call("answer", text="A"))
            await env.reset(seed=0)
            await env.step(call("answer", text="A"))
            return before, await env.step(call("crop", start_s=0, end_s=1)), await env.state()

    before, late, state = play(early_and_late())
    assert (before.task_id, before.step_count, before.turns_left) == (None, 0, None)
    assert (late.done, late.reward, late.observation.error_code) == (True, 0.0, "over")
    assert state.step_count == 1


def test_no_ground_truth_goes_over_the_wire(server, tasks):
    """Answer and evidence of a task are in nothing that a client is sent before the answer."""

    async def listen():
        async with client(server) as env:
            begun = await env.reset(task_id=tasks[0].task_id)
            return begun.observation, await env.state()

    observation, state = play(listen())
    sent = observation.model_dump(exclude={"content"}) | state.model_dump()
    assert set(sent) == {
        *("done", "reward", "metadata", "tools", "error_code", "ending"),
        *("episode_id", "step_count", "task_id", "turns_left", "frames_left"),
    }
    assert sent["metadata"] == {"is_success": False}
    said = "\n".join(part.text for part in observation.content if part.type == "text")
    assert tasks[0].question in said  # the options stand in it, the letter that is right alone nowhere
    shown = set(re.findall(r"^\[(\d+\.\d\d) s\]$", said, re.MULTILINE))
    segment = tasks[0].evidence[0]
    for time_s in (segment.start_s, segment.end_s):
        assert f"{time_s:.2f}" in shown or not re.search(rf"\b{time_s:.2f}\b", said)
    told = json.dumps({**sent, "tools": None}, default=str)
    assert not re.search(rf'"{tasks[0].answer}"', told) and "evidence" not in told


def ask_http(server, path, body=None):
    request = urllib.request.Request(
        server.url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_plain_http_tells_what_is_served_and_that_steps_need_a_session(server):
    assert ask_http(server, "/health") == (200, {"status": "healthy"})
    assert ask_http(server, "/metadata")[1]["name"] == "videogym"
    schema = ask_http(server, "/schema")[1]
    assert set(schema["action"]["properties"]) == {"tool", "arguments", "metadata"}
    assert "frames_left" in schema["state"]["properties"]
    status, begun = ask_http(server, "/reset", {"seed": 1})
    assert status == 200 and begun["observation"]["content"][-1]["type"] == "text"
    status, told = ask_http(server, "/step", {"action": {"tool": "answer", "arguments": {"text": "A"}}})
    assert status == 400 and "reset first" in told["detail"]
    status, told = ask_http(server, "/reset", {"task_id": "nobody"})
    assert status == 400 and "nobody" in told["detail"]
