"""Questions with answers and time spans, made of the captions of neighbouring scenes.

Source: VideoSIAH, which puts some 15 segments into one request. What a reply says is taken as it is:
what is wrong with a question is the filter's business.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from videogym.data.asking import Asker, object_in, shown, text_part, user
from videogym.data.prompts import StepPrompt, step_prompt
from videogym.data.work import DataError, Dropped, Item, Made, Progress, Summary, WorkFolder, run_step
from videogym.judging.language_model import quoted

_VERSION = 1
SCENES = 15  # in one request


def make_questions(
    work: WorkFolder,
    asker: Asker,
    prompt: StepPrompt | None = None,
    *,
    scenes: int = SCENES,
    count: int = 5,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Have questions made of all captions.

    Args:
        work: whose captions.
        asker: who makes them.
        prompt: the prompt ``questions``; None: ours.
        scenes: neighbouring ones of one request.
        count: most questions that are asked for in one request.
        jobs: requests at once.
        progress: called with (done, total).

    Returns:
        Its counts are of requests; the filter counts questions.

    Raises:
        DataError: scenes have no caption yet, or the folder holds something else.
        EndpointError: the endpoint cannot be used.
    """
    prompt = prompt or step_prompt("questions")
    by = {"version": _VERSION, "model": asker.model, "prompt": prompt.identity}
    by |= {"scenes": scenes, "count": count}

    def make(source: tuple[dict[str, Any], list[dict[str, Any]]]) -> Made:
        video, captions = source
        segments = [
            f'{{"start_s": {row["start_s"]:.2f}, "end_s": {row["end_s"]:.2f}, '
            f'"text": {quoted(row["caption"])}}}'
            for row in captions
        ]
        told = prompt.fill(segments=segments, count=count, duration_s=float(video["duration_s"]))
        found = object_in(asker.ask("questions", [user(text_part(told))]))
        extent = {"start_s": captions[0]["start_s"], "end_s": captions[-1]["end_s"]}
        facts = {name: video[name] for name in ("video", "fingerprint", "duration_s")} | extent
        if not isinstance(found, Dropped) and not isinstance(found.get("questions"), list):
            found = Dropped(
                "malformed", f"field 'questions' must be a list, got {shown(found.get('questions'))}"
            )
        if isinstance(found, Dropped):
            where = f"{video['video']} from {extent['start_s']:.2f} to {extent['end_s']:.2f} s"
            return Dropped(found.code, f"{where}: {found.reason}", facts)
        return {**facts, "questions": found["questions"]}

    return run_step(
        work,
        "questions",
        _items(work, by, scenes),
        make,
        jobs=jobs,
        progress=progress,
        cost=asker.cost,
        max_tokens=asker.max_tokens,
    )


def _items(work: WorkFolder, by: dict[str, Any], scenes: int) -> list[Item]:
    captions = {row["place"]: row for row in work.current("captions")}
    items = []
    for video in work.kept("scenes"):
        groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for i in range(len(video["scenes"])):
            row = captions.get(f"{video['place']}#{i}")
            if row is None:
                raise DataError(
                    f"{work.folder}: scenes of {video['video']} have no caption yet: "
                    "run `videogym data caption` first"
                )
            if "code" not in row:
                groups[i // scenes].append(row)
        for number, rows in groups.items():
            keys = tuple(row["key"] for row in rows)
            items.append(Item(f"{video['place']}#{number}", keys, by, (video, rows)))
    return items
