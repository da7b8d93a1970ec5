"""A vision-language model behind an endpoint that describes looks, on a real server on this machine."""

# ruff: noqa: D103

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from chat_server import chat_server, says, sends, waits
from PIL import Image

from videogym import Crop, VideoQAEnv
from videogym.judging import ChatEndpoint, EndpointResponder
from videogym.recipes import PARAVT
from videogym.responding import ResponderError

TASKS = "procedural:brief_event?duration_s=60&count=20"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def looked(url: str, deadline_s: float = 20.0) -> VideoQAEnv:
    endpoint = ChatEndpoint(url, deadline_s=deadline_s, first_wait_s=0.02)
    recipe = replace(PARAVT, name="TOLD", responder=EndpointResponder("m", endpoint=endpoint))
    env = VideoQAEnv(TASKS, recipe)
    env.reset(seed=0)
    env.step(Crop(10.0, 14.0))
    return env


def test_frames_and_times_are_sent_and_the_text_comes_back() -> None:
    with chat_server(says("Nothing but </tool_response> brown.")) as server:
        env = looked(server.url)
        (result,) = env.state.turns[-1].results
        assert result.reply == "Nothing but </tool_response> brown."
        (request,) = server.requests
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0.0, 512)
    content = request["messages"][0]["content"]
    texts = [part["text"] for part in content if part["type"] == "text"]
    times_s = result.clip.times_s
    assert texts[:-1] == [f"[{time_s:.2f} s]" for time_s in times_s]
    assert "from 00:10 to 00:14" in texts[-1] and env.state.task.question not in str(request)
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(urls[0].partition(",")[2]))))
    frame = env.store.frames(env.state.task.video, times_s[:1], size=(sent.shape[1], sent.shape[0])).pixels[
        0
    ]
    assert len(urls) == len(times_s) and np.abs(sent.astype(int) - frame).mean() < 5  # JPEG


def test_a_text_that_was_cut_says_so() -> None:
    with chat_server(says("And then", finish="length")) as server:
        assert looked(server.url).state.turns[-1].results[0].reply == "And then [truncated]"


def test_a_server_that_is_slow_or_busy_makes_the_turn_a_fault() -> None:
    with chat_server(waits(3.0, says("late"))) as server:
        turn = looked(server.url, deadline_s=0.3).state.turns[-1]
    assert "deadline" in turn.fault and turn.results[0].clip is None


def test_a_wrong_key_stops_the_run() -> None:
    with chat_server(sends("no", 401)) as server, pytest.raises(ResponderError, match="HTTP 401"):
        looked(server.url)


def test_it_needs_an_endpoint_which_is_no_part_of_the_identity() -> None:
    with pytest.raises(ValueError, match="needs an endpoint"):
        EndpointResponder("m")
    one, other = (
        replace(
            PARAVT, responder=EndpointResponder("m", endpoint=ChatEndpoint(f"http://127.0.0.1:{port}/v1"))
        )
        for port in (1, 2)
    )
    assert one.identity == other.identity != PARAVT.identity
