"""A tiny language model learns where to look, in a few minutes: the end of the demonstration.

It starts from a checkpoint that comes with the package, `COLD_START`: the cold start of
`agents.experiments.lift` under LONGVT_TINY, which has learnt to see, to read and to speak, and of whose
demonstrations most looked before they had searched. GRPO is paid for right answers alone, for their form
and for looks that meet the event; nobody shows it where to look.

The checkpoint is made by ``python -m agents.experiments.lift --recipes LONGVT_TINY --seeds 4 --stages sft``
and by rounding the weights to bfloat16. With `COLD_START` as ``--checkpoint`` it is a start for experiments
of your own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.utils.logging import disable_progress_bar

from videogym import FrameStore, TextActions, VideoQAEnv
from videogym.comparison.paired import share_difference
from videogym.datasets import load_tasks
from videogym.evaluate import Estimate, proportion
from videogym.rendering import render_rgb

from .. import train_grpo_mllm
from ..vlm.config import ChatConfig
from ..vlm.policy import make_actor, make_model
from ..vlm.records import Record
from .episodes import course, metrics
from .lift import answered, stages

COLD_START = Path(__file__).parent / "cold_start"
QUESTIONS = 200  # held out, and as many for the models that see less
ROWS = (  # name, whether after GRPO, way of answering
    ("cold start", False, "sampled"),
    ("after GRPO", True, "sampled"),
    ("blind", True, "blind"),
    ("skim only", True, "skim"),
)


def learn_to_look(out: Path, questions: int = QUESTIONS, iterations: int | None = None) -> Estimate:
    """Train by GRPO, print what it has changed, and draw an episode before and after.

    Args:
        out: folder of the run, of the model and of ``looking.png``; emptied before.
        questions: held out, that all rows of the table answer.
        iterations: of GRPO; None: as many as in the study.

    Returns:
        By how much the model is right more often than before, question by question.
    """
    disable_progress_bar()  # transformers draws one for every file it reads or writes
    shutil.rmtree(out, ignore_errors=True)  # another run's checkpoint would be resumed
    stage = stages("LONGVT_TINY", seed=0)["grpo"]
    config = stage.config.with_options(checkpoint=str(COLD_START), eval_episodes=16)
    assert isinstance(config, train_grpo_mllm.Config)
    config = config.with_options(iterations=iterations or config.iterations, eval_every=config.iterations)
    actor = make_actor(config, make_model(config, FrameStore(open_videos=64)))
    train_grpo_mllm.train(config, actor, out / "grpo", progress=True)
    actor.model.save(str(out / "model"))
    tasks = config.evaluation.eval_tasks.replace("split=val", "split=test")
    records = {
        name: answered(config, out / "model" if after else COLD_START, tasks, way, questions)
        for name, after, way in ROWS
    }
    gain = share_difference(*(right(records[name]) for name in ("cold start", "after GRPO")))
    sys.stdout.write(f"\n{table(records, tasks)}\nGRPO adds {gain}\n")
    draw_before_and_after(config, tasks, records["cold start"], records["after GRPO"], out / "looking.png")
    return gain


def right(records: Sequence[Record]) -> list[bool]:
    """Whether each was answered rightly."""
    return [bool(record.success) for record in records]


def table(records: dict[str, list[Record]], tasks: str) -> str:
    """One line a row; shares of right answers with 95 % intervals."""
    task = load_tasks(tasks).by_id
    lines = [
        "tiny Qwen2.5-VL under LONGVT_TINY, held-out videos",
        f"{'':<10} {'right':>20} {'first look met':>15} {'looks':>6}",
    ]
    for name, some in records.items():
        found = metrics([course(one, task(one.task_id)) for one in some if not one.abort_reason])
        share = proportion(sum(right(some)), len(some))
        lines.append(f"{name:<10} {share!s:>20} {found['first_look_met']:>15.2f} {found['looks']:>6.2f}")
    return "\n".join(lines)


def draw_before_and_after(
    config: ChatConfig, tasks: str, before: Sequence[Record], after: Sequence[Record], path: Path
) -> None:
    """The ends of two episodes of one task, the evidence marked, one below the other.

    Of the first task that was answered wrongly before and rightly after, or else of the first.
    """
    env = TextActions(VideoQAEnv(tasks, config.rules))
    pictures = []
    for record in _learnt(before, after):
        env.reset(options={"task_id": record.task_id})
        for turn in record.played:
            env.step(turn.text)
        inner = env.unwrapped
        assert isinstance(inner, VideoQAEnv)
        pictures.append(render_rgb(inner.state, inner.store, evidence=True))
    env.close()
    Image.fromarray(np.concatenate(pictures)).save(path)


def _learnt(before: Sequence[Record], after: Sequence[Record]) -> tuple[Record, Record]:
    pairs = list(zip(before, after, strict=True))
    return next(((old, new) for old, new in pairs if new.success and not old.success), pairs[0])
