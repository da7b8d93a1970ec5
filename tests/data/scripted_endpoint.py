"""A model that knows three procedural videos by their scripts, behind a real server.

It tells the videos apart by the pixels it is sent, so a frame of another file is noticed, and answers
whatever the pipeline asks. Some of its questions are wrong on purpose, each in one way.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videogym.cli import main
from videogym.video.synthetic import encode, open_synthetic
from videogym.video.synthetic.script import EVENT_COLOURS, Event, Scene

sys.path.insert(0, str(Path(__file__).parents[1] / "judging"))
from chat_server import Act, ChatServer, sends, serving

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
FIRST = "Which colour is the background at the beginning?"
TIMED = "What is seen at 100 seconds in front of the {} wall?"


# What goes wrong in episodes, by video and background; in all others the first look is wrong and is mended.
TEACHERS = {
    ("film-1.mp4", "magenta"): "leak",
    ("film-1.mp4", "pink"): "spoken",
    ("film-2.mp4", "pink"): "wrong_answer",
    ("film-2.mp4", "magenta"): "no_look",
    ("film-3.mp4", "pink"): "iou",
    ("film-3.mp4", "brown"): "refused_call",
}


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
        if prompt.startswith("Answer this question about a video that you cannot see"):
            return json.dumps({"answer": "four" if HORSE in quoted_in(prompt) else "unknown"})
        if prompt.startswith("Answer this question about a video from the frames"):
            return json.dumps({"answer": self.skimmed(request)})
        if prompt.startswith("Somebody claims"):
            return json.dumps(self.verified(request))
        if prompt.startswith("You show others"):
            return self.taught(request)
        if prompt.startswith("You compare an answer"):
            _, reference, answer = quoted_in(prompt)
            same = any(colour in reference and colour in answer for colour in EVENT_COLOURS)
            return f"They {'say' if same else 'do not say'} the same.\nJudgement: {int(same)}"
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

    def skimmed(self, request: Mapping[str, Any]) -> str:
        """What few frames of a whole video tell."""
        (question,) = quoted_in(words(request))
        if question == FIRST:
            return open_synthetic(ADDRESSES[video_of(request)]).script.scenes[0].colour
        fact = fact_of(video_of(request), question)
        return fact.event.colour if fact is not None and is_seen(fact, request) else "unknown"

    def verified(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """How right an answer is."""
        question, answer = quoted_in(words(request))
        fact = fact_of(video_of(request), question)
        right = fact is not None and is_seen(fact, request) and fact.event.colour in answer
        return {"score": 0.95 if right else 0.2, "why": "as it is seen"}

    def taught(self, request: Mapping[str, Any]) -> str:
        """The next turn of an episode: some teachers look wrong first, and some never do it right."""
        messages = request["messages"]
        said = [message for message in messages if message["role"] == "assistant"]
        texts = [
            part["text"] for message in messages for part in content(message) if part["type"] == "text"
        ]
        question = next(line for text in texts for line in text.splitlines() if line.startswith("Which"))
        path = next(text for text in texts if "The path of this video is: " in text).split(": ")[-1]
        name = video_of({"messages": messages[:1]})
        fact = fact_of(name, question)
        assert fact is not None and path == name
        (start_s, end_s), fault = fact.span_s, TEACHERS.get((name, fact.scene.colour), "")
        note = next((text for text in texts if text.startswith("A note to you alone")), None)
        told = re.findall(r"\d+\.\d+", note or "")
        if fault == "no_look" or len(said) == (2 if fault in ("", "mended", "leak", "spoken") else 1):
            return self.answered(fact, "purple" if fault == "wrong_answer" else fact.event.colour)
        look, thought = (start_s - 0.5, end_s + 0.5), f"The {fact.scene.colour} scene must be here."
        if not said and fault in ("", "mended", "leak", "spoken"):
            look, thought = ((start_s + 200) % 500, (start_s + 200) % 500 + 20), "Perhaps in this part."
        elif fault == "leak":
            thought = f"It must be after {told[0]} s."
        elif fault == "spoken":
            thought = "The note says that it is here."
        elif fault == "iou":
            look = (max(0.0, start_s - 90), end_s + 90)
        if fault == "refused_call":
            look = (end_s, start_s)
        if said and fault in ("", "mended", "leak", "spoken"):
            assert note is not None and float(told[0]) <= start_s and end_s <= float(told[1])
        arguments = {"video_path": path, "start_time": look[0], "end_time": look[1]}
        return json.dumps({"thought": thought, "tool": "crop_video", "arguments": arguments})

    def answered(self, fact: Fact, colour: str) -> str:
        """The turn that ends an episode."""
        thought = f"A {fact.event.shape} is there, so I can answer."
        return json.dumps({"thought": thought, "tool": "answer", "arguments": {"text": colour}})

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


def quoted_in(prompt: str) -> list[str]:
    """The JSON strings of a prompt, each at the end of a line."""
    return [json.loads(found) for found in re.findall(r'(?m)(?:^|: )("(?:[^"\\]|\\.)*")$', prompt)]


def fact_of(name: str, question: str) -> Fact | None:
    """The event that a question is about, told by the wall or the background in it."""
    return next((fact for fact in facts(name) if re.search(rf"\b{fact.scene.colour}\b", question)), None)


def entry(fact: Fact) -> dict[str, Any]:
    """The question of an event, its span a little off, as a model's are."""
    start_s, end_s = fact.span_s
    return {
        "question": fact.question,
        "answer": f"The {fact.event.colour} one" if len(fact.event.shape) % 2 else fact.event.colour,
        "start_s": start_s + 0.1,
        "end_s": end_s - 0.05,
    }


def is_seen(fact: Fact, request: Mapping[str, Any]) -> bool:
    """Whether a frame of a request shows the event."""
    return any(fact.span_s[0] <= time_s < fact.span_s[1] for time_s, _ in shown(request))


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
        {"question": FIRST, "answer": open_synthetic(ADDRESSES[name]).script.scenes[0].colour, **span},
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


STEPS = ("scenes", "caption", "questions", "filter", "traces")


def command(step: str, work: Path, footage: Path, url: str, jobs: int = 2) -> list[str]:
    """The arguments of a step."""
    line = ["data", step, "--work", str(work), "--jobs", str(jobs)]
    if step == "scenes":
        return [*line, str(footage), "--cuts", "none", "--max-scene-s", "60"]
    line += {"caption": ["--frames", "6"], "questions": ["--scenes", "8"]}.get(step, [])
    return [*line, "--endpoint", url, "--model", "scripted", "--deadline-s", "60"]


def run_all(work: Path, footage: Path, url: str, jobs: int = 2) -> int:
    """Run all steps; returns the highest exit status."""
    return max(main(command(step, work, footage, url, jobs)) for step in STEPS)


def rows(work: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a step."""
    return [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]


# --- killed at any moment ------------------------------------------------------------------------

FILES = ("scenes", "captions", "questions", "filter", "traces")
RUN = "import json, sys; from videogym.cli import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"


def killed_until_done(
    footage: Path,
    work: Path,
    model: ScriptedModel,
    moments: int,
    rng: random.Random,
    most: int,
    jobs: int = 2,
) -> int:
    """Run all steps, killing the process at so many random moments; returns the kills that came in time."""
    lines = json.dumps([command(step, work, footage, model.url, jobs) for step in STEPS])
    for kills in count():
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, lines], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        before, until = len(model.requests), time.monotonic() + 60.0
        if kills < moments:
            # After some requests of this process, and a moment that may be in the middle of a write.
            wanted = before + rng.randint(0, most)
            while process.poll() is None and time.monotonic() < until and len(model.requests) < wanted:
                time.sleep(0.001)
            time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.02), rng.uniform(0.0, 0.5))))
            process.send_signal(signal.SIGKILL)
        _, told = process.communicate(timeout=300)
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, told.decode()
    raise AssertionError


def same_end(work: Path, finished: Path, model: ScriptedModel, kills: int, jobs: int = 2) -> None:
    """All files are those of a run that nothing disturbed, and no reply was paid for twice."""
    for name in FILES:
        assert (work / f"{name}.jsonl").read_bytes() == (finished / f"{name}.jsonl").read_bytes(), name
    ours, theirs = (
        sorted((folder / "replies.jsonl").read_text().splitlines()) for folder in (work, finished)
    )
    assert ours == theirs
    # A call whose reply nobody had yet is made again: as many as were under way at a kill.
    assert len(model.requests) - len(model.seen) <= kills * jobs
    assert not model.faults
