"""A real MCP client plays an episode that our server serves in a process of its own, over stdio."""

# ruff: noqa: D103

import base64
import io
import json
import os
import subprocess
import sys
from itertools import pairwise

import jsonschema
import numpy as np
import pytest
from PIL import Image

from videogym import VideoQAEnv
from videogym.grammars import get_grammar
from videogym.testing.coded_clips import read_code, write_clip
from videogym.tool_episode import ToolEpisode
from videogym.traces import read_traces

pytestmark = pytest.mark.peers("mcp", "anyio")

RATE, SECONDS = 8, 60  # 480 frames, each of which carries its number
SIZE = (280, 168)  # within the recipe's pixel budget and multiples of 28: shown as it is


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A coded clip and a task about it."""
    folder = tmp_path_factory.mktemp("mcp")
    write_clip(folder / "a clip.mp4", RATE * SECONDS, size=SIZE, rate=RATE, codec_options={"g": "48"})
    row = {
        "task_id": "coded",
        "video": "a clip.mp4",
        "question": "Which <b>one</b>?",
        "kind": "choice",
        "options": ["left", "right"],
        "answer": "B",
        "evidence": [[20, 24]],
    }
    (folder / "tasks.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def command(folder, *options):
    return [
        *("-m", "videogym.mcp_server", "--tasks", str(folder / "tasks.jsonl")),
        *("--video-root", str(folder), *options),
    ]


def talk(server, play):
    """Connect a client, let a coroutine use it, and return what that returns."""
    import anyio
    from mcp import Client

    async def session():
        with anyio.fail_after(60):
            async with Client(server) as client:
                return await play(client)

    return anyio.run(session)


def over_stdio(folder, *options):
    """The server as a process of its own."""
    from mcp import StdioServerParameters

    return StdioServerParameters(
        command=sys.executable, args=command(folder, *options), env=dict(os.environ), cwd=str(folder)
    )


def in_process(folder, recipe="DEFAULT"):
    from videogym.mcp_server import make_server

    episode = ToolEpisode(VideoQAEnv(str(folder / "tasks.jsonl"), recipe, video_root=str(folder)))
    episode.begin(seed=0)
    return make_server(episode)


def pictures(result):
    """Frames with the times that stand before them."""
    blocks = result.content
    for before, block in pairwise(blocks):
        if block.type == "image":
            assert block.mime_type == "image/jpeg"
            image = Image.open(io.BytesIO(base64.b64decode(block.data)))
            yield float(before.text.strip("[] s")), np.asarray(image)


def texts(result):
    return [block.text for block in result.content if block.type == "text"]


async def listen(client):
    return (await client.list_tools()).tools


@pytest.mark.parametrize(
    ("recipe", "names"),
    [("DEFAULT", {"crop", "answer"}), ("LONGVT/paper", {"crop_video", "answer"})],
)
def test_a_client_is_offered_the_tools_of_the_grammar(recipe, names, folder):
    """By the names and schemas that a model is prompted with in the same recipe."""
    tools = {tool.name: tool for tool in talk(in_process(folder, recipe), listen)}
    assert set(tools) == names | {"question"}
    env = VideoQAEnv(str(folder / "tasks.jsonl"), recipe, video_root=str(folder))
    for schema in get_grammar(env.recipe.grammar).tools(env.recipe.rules):
        function = schema["function"]
        served = tools[function["name"]]
        jsonschema.Draft202012Validator.check_schema(served.input_schema)
        assert served.description == function["description"]
        assert served.input_schema["required"] == function["parameters"]["required"]
        assert list(served.input_schema["properties"]) == list(function["parameters"]["properties"])


async def look_and_answer(client):
    question = await client.call_tool("question", {})
    refused = await client.call_tool("crop", {"start_s": 30, "end_s": 20})
    look = await client.call_tool("crop", {"start_s": 20, "end_s": 24})
    answer = await client.call_tool("answer", {"text": "B"})
    late = await client.call_tool("crop", {"start_s": 0, "end_s": 9})
    return question, refused, look, answer, late


def test_an_episode_from_question_to_answer(folder, tmp_path):
    """Pixels tell the time: every picture shows the frame of the second that is written before it."""
    traces = tmp_path / "played.jsonl"
    results = talk(over_stdio(folder, "--traces", str(traces)), look_and_answer)
    question, refused, look, answer, late = results

    assert "Which <b>one</b>?\nA. left\nB. right" in texts(question)[-1]
    for result, count in ((question, 32), (look, 8)):  # 4 s at 2 fps
        shown = list(pictures(result))
        assert len(shown) == count
        assert [read_code(image) for _, image in shown] == [
            pytest.approx(time_s * RATE, abs=0.05) for time_s, _ in shown
        ]
    times = [time_s for time_s, _ in pictures(look)]
    assert (times[0], times[-1]) == (20, 24)

    assert refused.is_error and "end must be after the start" in texts(refused)[0]
    assert texts(refused)[-1] == "5 turns are left. 64 more frames can be shown."
    assert texts(answer) == ["The episode is over (answered)."] and not answer.is_error
    assert late.is_error

    # A look at just the evidence: IoU 1, where the skim of 60 s had 4 / 60, weight 0.5. Then the answer.
    paid = [result.meta["videogym/reward"] for result in results]
    assert paid == pytest.approx([0.0, 0.0, 0.5 * 56 / 60, 1.0, 0.0])
    assert answer.meta["videogym/is_success"] and answer.meta["videogym/ending"] == "answered"
    assert [r.meta["videogym/error_code"] for r in results] == ["", "order", "", "", "over"]
    # A reward points at the evidence, so a model reads none: times and what is left is all there is.
    assert texts(look) == [
        *(f"[{time_s:.2f} s]" for time_s in times),
        "4 turns are left. 56 more frames can be shown.",
    ]
    assert all(result.structured_content is None for result in results)

    (stored,) = read_traces(traces).episodes
    assert (
        stored.reward == pytest.approx(1 + 0.5 * 56 / 60) and stored.correct and stored.ending == "answered"
    )
    assert [turn.turn.error and turn.turn.error.code for turn in stored.turns] == ["order", None, None]
    assert '"end_s": 24' in stored.turns[1].turn.text


async def look_and_leave(client):
    await client.call_tool("crop", {"start_s": 20, "end_s": 24})


def test_an_episode_that_is_left_is_stored_as_left(folder, tmp_path):
    talk(over_stdio(folder, "--traces", str(tmp_path / "left.jsonl")), look_and_leave)
    (stored,) = read_traces(tmp_path / "left.jsonl").episodes
    assert (stored.ending, stored.cut, len(stored.turns)) == ("", "left", 1)


async def calls_at_once(client):
    import anyio

    results = []

    async def look(start_s):
        arguments = {"start_s": start_s, "end_s": start_s + 2}
        results.append(await client.call_tool("crop", arguments))

    async with anyio.create_task_group() as group:
        for start_s in (0, 10, 20):
            group.start_soon(look, start_s)
    return results


def test_calls_sent_at_once_are_turns_one_after_the_other(folder):
    results = talk(over_stdio(folder), calls_at_once)
    left = sorted(int(texts(result)[-1].split()[0]) for result in results)
    assert left == [3, 4, 5], "two calls were played as one turn"
    for result in results:
        times = [time_s for time_s, _ in pictures(result)]
        assert len(times) == 4 and times[-1] - times[0] == 2.0, "a reply mixes two calls"


async def strange_calls(client):
    call = client.call_tool
    return [
        await call("crop_video", {"start_time": 0, "end_time": 2}),
        await call("crop", {"start_s": "0", "end_s": 2}),
        await call("crop", {}),
        await call("answer", {"text": "C"}),
        await call("answer", {"text": ["B"]}),
        await call("answer", {"text": "b"}),
    ]


def test_bad_calls_are_told_what_to_do(folder):
    *bad, good = talk(in_process(folder), strange_calls)
    said = [texts(result)[0] for result in bad]
    assert all(result.is_error for result in bad) and not good.is_error
    for sentence, part in zip(
        said, ("call crop or answer", "numbers", "needs", "A, B", "string"), strict=True
    ):
        assert part in sentence


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "LONGTV"], "unknown recipe 'LONGTV'"),
        (["--task-id", "nobody"], "nobody"),
        (["--seed", "-1"], "seed is a whole number, not negative, got -1"),
        (["--grammar", "video_mtr/strict"], "has no tools"),
        (["--traces", "no/such/folder.jsonl"], "no/such/folder.jsonl"),
    ],
)
def test_a_wrong_option_ends_the_server_with_one_line(options, said, folder, capsys):
    from videogym.mcp_server import main

    assert main([*command(folder)[2:], *options]) == 2
    out, error = capsys.readouterr()
    assert out == "" and said in error and len(error.splitlines()) == 1


def test_without_the_package_the_module_says_what_to_install():
    code = "import sys; sys.modules['mcp'] = None; import videogym.mcp_server"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr.strip().endswith("pip install 'videogym[mcp]'")
