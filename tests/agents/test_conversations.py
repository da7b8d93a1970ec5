"""Conversations that a run shows: what the page and TensorBoard have, and frames that cannot be shown."""

# ruff: noqa: D102

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_chat import ODD, TASKS, Noise, image, load, make_actor, shown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import train_grpo_mllm, train_ppo_mllm
from agents.models.qwen_vl import QwenVL
from agents.training.loggers import Shown
from agents.vlm.actor import ChatActor
from agents.vlm.command import command_line
from agents.vlm.config import ConversationConfig
from agents.vlm.conversations import ConversationLog
from agents.vlm.records import Record, TurnRecord, read_records

SMALL: dict[str, Any] = {
    **{"recipe": ODD, "tasks": TASKS, "eval_tasks": f"{TASKS}&split=val", "eval_episodes": 1},
    **{"max_new_tokens": 6, "groups": 2, "group_size": 2, "iterations": 3, "kl_coef": 0.0},
    **{"eval_every": 9, "conversations_every": 2, "conversations_shown": 3},
}
LOOPS: dict[str, Any] = {"grpo": train_grpo_mllm, "ppo": train_ppo_mllm}


@pytest.fixture
def make(checkpoints: dict[str, Path]) -> Callable[[], ChatActor]:
    """Makes actors with the same weights."""
    return lambda: make_actor(load(checkpoints["qwen2_5_vl"]))


class FakeRun:
    """What a log asks of a run."""

    first_iteration = 0

    def __init__(self, out: Path) -> None:
        self.out, self.given = out, dict[int, Any]()

    def is_due(self, iteration: int, every: int) -> bool:
        return True

    def span(self, name: str) -> Any:
        return nullcontext()

    def show(self, iteration: int, conversations: list[Shown]) -> None:
        self.given[iteration] = conversations


@pytest.mark.parametrize("name", LOOPS)
def test_a_run_shows_some_conversations_of_every_so_many_iterations(
    name: str, make: Callable[[], ChatActor], tmp_path: Path
) -> None:
    """Every second iteration, and the last: texts, payments and frames, on a page and in TensorBoard."""
    module, actor = LOOPS[name], make()
    module.train(module.Config.of(**SMALL, logger="tensorboard"), actor, tmp_path)
    pages = sorted((tmp_path / "conversations").iterdir())
    assert [page.name for page in pages] == ["000001.html", "000002.html"]
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    for number, page in zip((1, 2), pages, strict=True):
        text = page.read_text()
        records = list(read_records(tmp_path / "records" / f"{number:06d}.jsonl"))
        # Two tasks, and a second episode of the first.
        chosen = [records[0], records[2], records[1]]
        headings = re.findall(r"<h2>(.*?)</h2>", text)
        rewards = [f"reward {one.total_reward:.3f}" for one in chosen]
        assert [heading.split(": ")[0] for heading in headings] == [one.task_id for one in chosen]
        assert all(reward in heading for reward, heading in zip(rewards, headings, strict=True))
        pictures = sum(
            min(8, sum(len(v.times_s) for v in turn.visuals)) for one in chosen for turn in one.turns
        )
        assert text.count('<img src="data:image/jpeg;base64,') == pictures > 0
        assert "<script" not in text and "default-src 'none'" in text
        for place, one in enumerate(chosen):
            (tag,) = [t for t in events.Tags()["tensors"] if t.startswith(f"conversations/{place}")]
            (told,) = [e for e in events.Tensors(tag) if e.step == number]
            said = actor.model.tokenizer.decode(list(one.turns[0].output)).splitlines()[0]
            assert said.strip() in told.tensor_proto.string_val[0].decode()
            (seen,) = [e for e in events.Images(f"conversations/{place}") if e.step == number]
            assert seen.width > 0 and seen.height > 0


def test_a_run_that_is_done_again_shows_what_it_does_then(
    make: Callable[[], ChatActor], tmp_path: Path
) -> None:
    """Another run in the same folder leaves no page of the one before."""
    config = train_grpo_mllm.Config.of(**SMALL)
    train_grpo_mllm.train(config, make(), tmp_path)
    (tmp_path / "checkpoint").unlink()
    train_grpo_mllm.train(replace(config, iterations=1), make(), tmp_path)
    assert [page.name for page in (tmp_path / "conversations").iterdir()] == ["000000.html"]


def test_by_default_nothing_is_shown(make: Callable[[], ChatActor], tmp_path: Path) -> None:
    """No page, no folder."""
    config = train_grpo_mllm.Config.of(**{**SMALL, "iterations": 1, "conversations_every": 0})
    train_grpo_mllm.train(config, make(), tmp_path)
    assert not (tmp_path / "conversations").exists()


def talk(model: QwenVL, text: str, times_s: tuple[float, ...]) -> Record:
    """One turn about frames of 56x112 pixels."""
    visuals = tuple(image(time_s, (56, 112)) for time_s in times_s)
    ids = shown(model, visuals, text)
    output = tuple(model.tokenizer.encode(text))
    turn = TurnRecord(ids, visuals, output, (0.0,) * len(output), (0,) * len(output), reward=0.5)
    return Record(
        "r@0", "t", "the task", "0.0.0", 0, "rollout", (), None, (turn,), "answered", success=None
    )


def test_texts_stay_texts_and_frames_that_cannot_be_shown_cost_themselves(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Markup is escaped; a broken video is told in its place; many frames are eight pictures."""
    text = "<script>alert(1)</script> & ```"
    model = load(checkpoints["qwen2_5_vl"])
    run = FakeRun(tmp_path)
    log = ConversationLog(ConversationConfig(1, 2), run, model)  # type: ignore[arg-type]
    record = talk(model, text, tuple(range(20)))
    log.write(0, [record])
    page = (tmp_path / "conversations" / "000000.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp;") == 2
    assert page.count("<img ") == 8 and "[20 visuals]" in page and "not judged, reward 0.500" in page
    (given,) = run.given[0]
    assert given.frames.shape == (112, 8 * 56, 3) and given.frames.dtype == np.uint8
    model.store = Noise(broken=("v",))
    log.write(1, [record])
    page = (tmp_path / "conversations" / "000001.html").read_text()
    assert "<img " not in page and "no frames: v: its packets are gone" in page
    assert run.given[1][0].frames is None and "no frames: v: its packets are gone" in run.given[1][0].text


def test_a_logger_that_is_not_installed_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is made."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    monkeypatch.setattr("sys.argv", ["train_grpo_mllm", "--logger", "wandb"])
    with pytest.raises(SystemExit) as ended:
        command_line("", train_grpo_mllm.Config, train_grpo_mllm.train, tmp_path / "out")
    told = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and told.endswith(
        "logger='wandb' needs wandb: pip install 'videogym[wandb]'"
    )
    assert not (tmp_path / "out").exists()
