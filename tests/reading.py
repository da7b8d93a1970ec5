"""How far a reader has to go: files and lines that one step and one update enter.

Run ``python tests/reading.py``. Traces one `videogym.TextActions.step`, one update of a language model by
`agents.train_grpo_mllm` and one of a compact policy by `agents.train_ppo`, and prints every file of this
repository that was entered, with its lines and those of the functions that ran. Of an update the model, the
engine, the environment and the evaluation are black boxes, each with a sentence to itself: their files are
listed apart and count in no sum.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=20"
BOXES = {
    "agents/models/": "the model: tokens and frames in, hidden states out",
    "agents/engines/": "the engine: contexts in, sampled tokens out",
    "agents/vlm/env.py": "the environment: outputs in, observations and rewards out",
    "agents/vlm/chat.py": "the environment: messages as token ids",
    "agents/vlm/rollouts.py": "the environment: episodes in lockstep",
    "agents/vlm/prefix_cache.py": "the model: keys and values of what conversations have in common",
    "agents/compact/env.py": "the environment: actions in, observations and rewards out",
    "agents/compact/network.py": "the model: observations in, logits and values out",
    "agents/compact/discrete.py": "the model: its contract",
    "agents/training/archive.py": "the checkpoint file",
    "agents/training/staging.py": "the checkpoint file",
    "videogym/": "the environment",
}


@dataclass
class Reading:
    """What was entered."""

    codes: set[CodeType] = field(default_factory=set)

    def by_file(self) -> dict[str, tuple[int, int]]:
        """Lines of every file of this repository, and those of its functions that were entered."""
        found: dict[str, set[int]] = {}
        for code in self.codes:
            path = Path(code.co_filename)
            if path.is_relative_to(ROOT) and "tests" not in path.relative_to(ROOT).parts:
                lines = {line for _, _, line in code.co_lines() if line}
                inside = range(code.co_firstlineno, max(lines, default=code.co_firstlineno) + 1)
                found.setdefault(str(path.relative_to(ROOT)), set()).update(inside)
        return {
            name: (len((ROOT / name).read_text(encoding="utf-8").splitlines()), len(lines))
            for name, lines in sorted(found.items())
        }


def box(name: str) -> str:
    """What a file belongs to that a reader of an update need not open; "" if it is the update's own."""
    return next((about for part, about in BOXES.items() if name.startswith(part)), "")


@contextmanager
def traced(reading: Reading) -> Iterator[None]:
    """Notice every Python function that is entered in the block, in this thread."""

    def enter(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            reading.codes.add(frame.f_code)

    sys.setprofile(enter)
    try:
        yield
    finally:
        sys.setprofile(None)


def a_step() -> Reading:
    """One step of a text policy: a look, by the grammar of Video-MTR."""
    from videogym import TextActions, VideoQAEnv

    env = TextActions(VideoQAEnv(TASKS, "VIDEO_MTR/paper"))
    env.reset(seed=0)
    reading = Reading()
    with traced(reading):
        *_, info = env.step("<think>There.</think><retrieve>10,40</retrieve>")
    assert not info["error_code"], info["error_code"]
    env.close()
    return reading


def first_iteration(loop: Callable[..., object], train: Callable[[Path], object]) -> Reading:
    """The body of a loop, once, as `TrainingRun.iterations` gives it its first number.

    Args:
        loop: whose body it is; it is entered before.
        train: calls it, with a folder.
    """
    from agents.training.run import TrainingRun

    reading, real = Reading({loop.__code__}), TrainingRun.iterations

    def iterations(self: TrainingRun, progress: bool = False) -> Iterator[int]:
        for iteration in real(self, progress):
            if iteration:
                yield iteration
            else:
                with traced(reading):
                    yield iteration

    TrainingRun.iterations = iterations  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(Path(folder))
    finally:
        TrainingRun.iterations = real  # type: ignore[method-assign]
    return reading


# Two iterations: after the last there is an evaluation and a checkpoint, which are no part of an update.
LOOP: dict[str, Any] = {
    "tasks": f"{TASKS}&split=train",
    "eval_tasks": f"{TASKS}&split=val",
    "eval_episodes": 1,
    "iterations": 2,
}


def an_update_of_a_language_model() -> Reading:
    """GRPO on a tiny Qwen2.5-VL, with a reference policy; each of two minibatches is one group."""
    from transformers.utils.logging import disable_progress_bar

    from agents import train_grpo_mllm
    from agents.vlm.policy import make_actor, make_model
    from agents.vlm.tiny import tiny_checkpoint
    from videogym import FrameStore

    disable_progress_bar()
    sizes = {"groups": 2, "group_size": 2, "mini_batch_groups": 1, "max_new_tokens": 8}
    config = train_grpo_mllm.Config.of(**LOOP, **sizes)

    def train(folder: Path) -> None:
        named = config.with_options(checkpoint=str(tiny_checkpoint(folder / "tiny", config)))
        actor = make_actor(named, make_model(named, FrameStore()))
        train_grpo_mllm.train(named, actor, folder / "run")

    return first_iteration(train_grpo_mllm.train, train)


def an_update_of_a_compact_policy() -> Reading:
    """PPO on the compact network."""
    from agents import train_ppo
    from agents.compact.run import make_compact

    config = train_ppo.Config.of(**LOOP, episodes=4, windows=(4,))
    return first_iteration(
        train_ppo.train, lambda folder: train_ppo.train(config, make_compact(config), folder / "run")
    )


def table(name: str, reading: Reading, goal: tuple[int, int], boxed: bool) -> str:
    """Files that were entered, and their sum beside the goal."""
    files = reading.by_file()
    own = {path: size for path, size in files.items() if not (boxed and box(path))}
    lines = [f"{name}: {len(own)} files, {sum(size for size, _ in own.values())} lines"]
    lines[0] += f" ({sum(entered for _, entered in own.values())} of them in functions that ran);"
    lines[0] += f" goal {goal[0]} files, {goal[1]} lines"
    lines += [f"  {path:<42}{size:>5}{entered:>6}" for path, (size, entered) in own.items()]
    boxes: dict[str, list[str]] = {}
    for path in files.keys() - own.keys():
        boxes.setdefault(box(path), []).append(path)
    lines += [f"  not opened: {about} ({len(paths)} files)" for about, paths in sorted(boxes.items())]
    return "\n".join(lines)


def main() -> None:
    """Print all three."""
    for name, read, goal, boxed in (
        ("TextActions.step", a_step, (8, 1500), False),
        ("an update of train_grpo_mllm", an_update_of_a_language_model, (5, 900), True),
        ("an update of train_ppo", an_update_of_a_compact_policy, (5, 900), True),
    ):
        sys.stdout.write(table(name, read(), goal, boxed) + "\n\n")


if __name__ == "__main__":
    main()
