"""Proves that a pipeline may be killed at any moment, and makes right questions and traces of videos.

Runs all steps of `videogym data` on three procedural videos, encoded, with a scripted model behind a real
server: once undisturbed, and once killed by SIGKILL at random moments and begun again. Every file of the
second run is that of the first, byte by byte; no reply that was stored is asked for again; every kept
question is right, its span at least 0.9 by IoU. Prints a table, exits 1 when anything is lost or wrong. Run
by ``make prove-pipeline``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from scripted_endpoint import (
    facts,
    killed_until_done,
    make_videos,
    run_all,
    same_end,
    scripted_model,
)

from videogym.data import WorkFolder, kept_tasks, kept_traces
from videogym.geometry import Segment, segment_iou

MOMENTS = 20


def wrong_tasks(work: Path) -> list[str]:
    """Kept questions that are not right, and traces that do not answer theirs."""
    wrong = []
    with WorkFolder(work) as folder:
        tasks, traces = kept_tasks(folder), kept_traces(folder)
    for task in [*tasks, *(trace.task for trace in traces)]:
        fact = next((fact for fact in facts(task.video) if fact.question == task.question), None)
        (evidence,) = task.evidence or (None,)
        if fact is None or evidence is None or fact.event.colour not in task.answer:
            wrong.append(f"{task.task_id}: {task.question!r} is answered by {task.answer!r}")
        elif segment_iou(evidence, Segment(*fact.span_s)) < 0.9:
            wrong.append(f"{task.task_id}: {evidence} is not {fact.span_s}")
    print(f"questions kept: {len(tasks)}, traces kept: {len(traces)}, wrong: {len(wrong)}")
    return wrong


def main(moments: int, seed: int) -> int:
    """Print the table; anything that went wrong decides the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        videos, calm, killed = (Path(folder) / name for name in ("videos", "calm", "killed"))
        make_videos(videos)
        with scripted_model() as model:
            status = run_all(calm, videos, model.url)
            calls = len(model.requests)
        wrong = [f"the undisturbed run ended with status {status}"] if status else wrong_tasks(calm)
        killed.mkdir()
        with scripted_model() as model:
            kills = killed_until_done(videos, killed, model, moments, random.Random(seed), most=4)
            try:
                same_end(killed, calm, model, kills)
            except AssertionError as error:
                wrong.append(f"after {kills} kills: {error}")
            again = len(model.requests) - len(model.seen)
        print(
            f"killed at {kills} moments: {calls} calls undisturbed, {len(model.requests)} in all, {again} "
            f"of them under way at a kill; lost or different: {len(wrong)}"
        )
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(main(arguments.moments, arguments.seed))
