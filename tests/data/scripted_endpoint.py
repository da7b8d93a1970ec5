"""A model that knows three procedural videos by their scripts, behind a real server.

It tells the videos apart by the pixels it is sent, so a frame of another file is noticed, and answers
whatever the pipeline asks. Some of its questions are wrong on purpose, each in one way.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videogym.video.synthetic import encode, open_synthetic
from videogym.video.synthetic.script import Event, Scene

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
from chat_server import Act, ChatServer, says, sends, serving

FORM = "fps=2&size=160x90&event_s=4"
ADDRESSES = {
    f"film-{seed}.mp4": f"synthetic:brief_event?level=0&duration_s=600&seed={seed}&{FORM}"
    for seed in (1, 2, 3)
}
NEAR = 16.0  # mean difference of a frame to what it shows, after H.264 and JPEG
REFUSAL = "I'm sorry, but I can't help with that."
HORSE = "How many legs does a horse have?"
WRONG = "Which colour is the thing that is seen in front of the {} wall?"
LATE = "What happens after the video, in front of the {} wall?"
TIMED = "What is seen at 100 seconds in front of the {} wall?"


@dataclass(frozen=True)
class Fact:
    """One event, and the question that it makes."""

    scene: Scene
    event: Event
    span_s: tuple[float, float]

    @property
    def question(self) -> str:
        """What is asked about it."""
        return f"Which colour is the shape that appears while the background is {self.scene.colour}?"


def facts(name: str) -> list[Fact]:
    """All events of a video."""
    video = open_synthetic(ADDRESSES[name])
    fps = video.meta.avg_fps
    return [
        Fact(scene, event, (event.first / fps, event.end / fps))
        for scene in video.script.scenes
        for event in scene.events
    ]


def make_videos(folder: Path) -> None:
    """Encode the three videos."""
    folder.mkdir()
    for name, address in ADDRESSES.items():
        encode(address, folder / name)


class ScriptedModel(ChatServer):
    """Answers by the scripts."""

    def __init__(self) -> None:
        super().__init__([])
        self.seen: Counter[str] = Counter()  # requests by their hash
        self.faults: list[str] = []  # what it was asked that nobody should ask
        self.bad_act: Act | None = None  # in place of every answer

    def take(self, body: bytes, headers: dict[str, str]) -> Act:
        """Note a request; what to do with it."""
        request = json.loads(body)
        with self.lock:
            self.requests.append(request)
            self.seen[hashlib.sha256(body).hexdigest()] += 1
        if self.bad_act is not None:
            return self.bad_act
        try:
            text = self.reply(request)
        except Exception as error:
            self.faults.append(repr(error))
            return sends(repr(error), 400)
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return sends(json.dumps({"model": "scripted", "choices": [choice], "usage": usage}))

    def reply(self, request: Mapping[str, Any]) -> str:
        """What the model says."""
        prompt = words(request)
        if prompt.startswith("These are frames of a video from"):
            return json.dumps({"caption": self.caption(request)})
        if prompt.startswith("A video lasts"):
            return self.questions(prompt)
        raise AssertionError(f"an unknown prompt: {prompt[:80]!r}")

    def caption(self, request: Mapping[str, Any]) -> str:
        """The scenes and events of a part of a video."""
        name = video_of(request)
        start_s, end_s = map(float, re.findall(r"from (\S+) s to (\S+) s", words(request))[0])
        told = [f"This is {name}."]
        for fact in facts(name):
            if fact.span_s[0] < end_s and start_s < fact.span_s[1]:
                thing, (first_s, last_s) = f"{fact.event.colour} {fact.event.shape}", fact.span_s
                told.append(f"A {thing} from {first_s} to {last_s} on {fact.scene.colour}.")
        return " ".join(told)

    def questions(self, prompt: str) -> str:
        """Right ones, and some that are wrong on purpose."""
        segments = [json.loads(line) for line in prompt.splitlines() if line.startswith('{"start_s"')]
        name = re.search(r"This is (\S+)\.", segments[0]["text"])[1]
        group = 0 if segments[0]["start_s"] == 0.0 else 1
        if (name, group) == ("film-2.mp4", 1):
            return '{"questions": [{"question": "What is it?"'
        if (name, group) == ("film-3.mp4", 1):
            return REFUSAL
        told = " ".join(segment["text"] for segment in segments)
        ends = segments[0]["start_s"], segments[-1]["end_s"]
        found = [
            entry(fact)
            for fact in facts(name)
            if fact.scene.colour in told and ends[0] <= fact.span_s[0] and fact.span_s[1] <= ends[1]
        ]
        if (name, group) == ("film-1.mp4", 0):
            found += faults(name, found[0])
        return f"Here they are:\n```json\n{json.dumps({'questions': found})}\n```"


def entry(fact: Fact) -> dict[str, Any]:
    """The question of an event, its span a little off, as a model's are."""
    start_s, end_s = fact.span_s
    return {
        "question": fact.question,
        "answer": f"The {fact.event.colour} one" if len(fact.event.shape) % 2 else fact.event.colour,
        "start_s": start_s + 0.1,
        "end_s": end_s - 0.05,
    }


def faults(name: str, right: Mapping[str, Any]) -> list[Any]:
    """One question for each thing that can be wrong with it."""
    event = next(fact for fact in facts(name) if fact.question == right["question"])
    wall, span = event.scene.colour, {"start_s": right["start_s"], "end_s": right["end_s"]}
    return [
        {"question": WRONG.format(wall), "answer": "purple", **span},
        {"question": LATE.format(wall), "answer": "nothing", "start_s": 590.0, "end_s": 640.0},
        {"question": HORSE, "answer": "four", **span},
        {**right, "question": right["question"].upper()},
        {"question": TIMED.format(wall), "answer": right["answer"], **span},
        {"question": "And what of this one?", **span},
        "no question at all",
    ]


def words(request: Mapping[str, Any]) -> str:
    """The text of the first message."""
    return str(request["messages"][0]["content"][0]["text"])


def shown(request: Mapping[str, Any]) -> list[tuple[float, np.ndarray]]:
    """Times and pixels of all frames of a request."""
    parts = [part for message in request["messages"] for part in content(message)]
    frames = []
    for before, part in pairwise(parts):
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            time_s = float(re.fullmatch(r"\[(\S+) s\]", before["text"])[1])
            frames.append((time_s, np.asarray(Image.open(io.BytesIO(data)))))
    return frames


def content(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message; a text is one."""
    given = message["content"]
    return [{"type": "text", "text": given}] if isinstance(given, str) else given


def video_of(request: Mapping[str, Any]) -> str:
    """The video that shows these frames at these times.

    Raises:
        AssertionError: none does.
    """
    frames = shown(request)
    assert frames, "no frames were sent"
    apart = {}
    frames = frames[:: max(1, len(frames) // 4)]
    for name, address in ADDRESSES.items():
        video = open_synthetic(address)
        times = [time_s for time_s, _ in frames]
        assert set(np.round(video.pts_s, 2)) >= set(times), f"{times} are not all times of frames"
        true = video.frames_at(times, size=frames[0][1].shape[1::-1]).pixels
        apart[name] = max(np.abs(a.astype(int) - b).mean() for a, (_, b) in zip(true, frames, strict=True))
    nearest = min(apart, key=apart.__getitem__)
    assert apart[nearest] < NEAR, f"frames at {times} are none of ours: {apart}"
    return nearest


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    """The model, served."""
    with serving(ScriptedModel()) as model:
        yield model


__all__ = ["ADDRESSES", "ScriptedModel", "facts", "make_videos", "says", "scripted_model"]
