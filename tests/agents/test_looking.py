"""The end of the demonstration: a cold start that comes with the package, and what GRPO makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.experiments.episodes import course
from agents.experiments.lift import answered, stages
from agents.experiments.looking import COLD_START, draw_before_and_after, learn_to_look
from videogym import TextActions, VideoQAEnv
from videogym.datasets import load_tasks
from videogym.rendering import render_rgb


def test_the_cold_start_speaks_and_looks_in_the_wrong_place() -> None:
    """Of 32 likeliest episodes: whole, with looks; most first looks miss, and what is met is read."""
    config = stages("LONGVT_TINY", 0)["grpo"].config
    tasks = config.evaluation.eval_tasks
    records = answered(config, COLD_START, tasks, "greedy", 32)
    task = load_tasks(tasks).by_id
    courses = [course(record, task(record.task_id)) for record in records]
    looked = [one for one in courses if one.looks]
    met = [one for one in courses if one.met]
    assert len(looked) >= 16
    assert sum(one.first_met for one in courses) <= 20
    assert len(met) >= 6 and sum(one.right for one in met) >= 0.7 * len(met)


def test_it_leaves_a_table_a_model_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After one iteration, on four questions; an earlier run's files are gone."""
    (tmp_path / "out" / "grpo").mkdir(parents=True)
    (tmp_path / "out" / "grpo" / "checkpoint").write_text("another run's")
    gain = learn_to_look(tmp_path / "out", questions=4, iterations=1)
    assert -1 <= gain.low <= gain.mean <= gain.high <= 1
    told = capsys.readouterr().out
    for name in ("cold start", "after GRPO", "blind", "skim only"):
        assert told.count(f"\n{name}") == 1
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    with Image.open(tmp_path / "out" / "looking.png") as image:
        assert image.size == (960, 720)


def test_the_picture_shows_a_task_that_was_learnt(tmp_path: Path) -> None:
    """The second of three: the first was right before, the last is wrong still. It is drawn twice."""
    config = stages("LONGVT_TINY", 0)["grpo"].config
    tasks = config.evaluation.eval_tasks
    env = VideoQAEnv(tasks, config.rules)
    records = answered(config, COLD_START, tasks, "greedy", 3)
    before = [
        replace(record, success=right) for record, right in zip(records, (True, False, False), strict=True)
    ]
    after = [
        replace(record, success=right) for record, right in zip(records, (True, True, False), strict=True)
    ]
    draw_before_and_after(config, tasks, before, after, tmp_path / "picture.png")
    replayed = TextActions(env)
    replayed.reset(options={"task_id": records[1].task_id})
    for turn in records[1].played:
        replayed.step(turn.text)
    expected = render_rgb(env.state, env.store, evidence=True)
    with Image.open(tmp_path / "picture.png") as image:
        picture = np.asarray(image)
    assert (picture[:360] == expected).all() and (picture[360:] == expected).all()
