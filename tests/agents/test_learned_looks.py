"""A compact policy learns to use a rate, a scale and a search, each where nothing else tells the answer.

What is learned is how to look, by GRPO from random weights and rewards for right answers alone. What the
frames tell is read by `PixelReader`, in real pixels at the size that was shown. Where the event is, looks
know; the search has to find it.
"""

# ruff: noqa: D103

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from needed_arguments import CHANCE, NEEDED, Needed

from agents.compact import run
from agents.compact.discrete import Acting
from agents.compact.network import CompactPolicy
from agents.compact.run import make_compact, make_env
from agents.policies import load_policy
from agents.train_grpo import Config, train
from videogym import Answer, Crop, DiscreteActions, Term, evaluate
from videogym.rewards import AnswerTerm
from videogym.state import Action
from videogym.testing.pixel_reader import read_answer


class Told(DiscreteActions):
    """Looks are near the evidence where windows are not what is learned; any answer is what frames tell."""

    def decode(self, index: int) -> Action:
        """As an oracle does that knows where, and not how."""
        action, env = super().decode(index), self.unwrapped
        state, store = env.state, env.store  # type: ignore[attr-defined]
        if isinstance(action, Answer):
            guess = state.task.letters[zlib.crc32(state.task.task_id.encode()) % len(state.task.letters)]
            return Answer(read_answer(state, store) or guess)
        if isinstance(action, Crop) and not self.searches:
            (event,) = state.task.evidence or ()
            start_s = max(0.0, event.start_s - 0.9)
            return replace(action, start_s=start_s, end_s=start_s + 1.9)
        return action

    @property
    def searches(self) -> bool:
        """Whether the episode has a search; then nobody knows where."""
        return "find" in self.unwrapped.recipe.rules.actions  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Lesson:
    """What a policy may choose between, and how many tasks it is measured on."""

    arguments: tuple[Mapping[str, Any], ...] = ({},)
    moments: int = 0
    measured: int = 100


LESSONS = {
    "rate": Lesson(arguments=({}, {"fps": 8})),
    "scale": Lesson(arguments=({}, {"scale": 1.0}), measured=60),
    "search": Lesson(moments=1),
}


def config_of(needed: Needed, lesson: Lesson) -> Config:
    """Two turns, so that there is one look; nothing is paid but the answer."""
    rules = replace(needed.recipe.rules, max_turns=2)
    terms = (Term("answer", "trajectory", AnswerTerm()),)
    return Config.of(
        recipe=replace(needed.recipe, name="LEARNED", rules=rules, terms=terms),
        tasks=f"procedural:{needed.tasks}&count=1000&split=train",
        eval_tasks=f"procedural:{needed.tasks}&count=4&split=val",
        windows=(1,),
        look_arguments=tuple(json.dumps(some) for some in lesson.arguments),
        moments=lesson.moments,
        episodes=32,
        group_size=16,
        iterations=16,
        entropy_coef=0.1,
        epochs=4,
        learning_rate=1e-2,
        eval_episodes=4,
        eval_every=100,
    )


def accuracy(policy: CompactPolicy, config: Config, needed: Needed, measured: int, drawn: bool) -> float:
    env = make_env(config, f"procedural:{needed.tasks}&count={measured}&split=test")
    generator = torch.Generator().manual_seed(0) if drawn else None
    return evaluate(Acting(policy, generator), env, episodes=measured).accuracy.mean


@pytest.mark.parametrize(
    "needed",
    # Three of them take a minute; the others are run by `make test-slow`.
    [pytest.param(one, id=one.name, marks=[pytest.mark.slow] * (one.name != "search")) for one in NEEDED],
)
def test_a_policy_learns_to_use_what_is_needed(
    needed: Needed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sampled before training near chance, then as likeliest above 0.8; without it never above 0.35."""
    monkeypatch.setattr(run, "DiscreteActions", Told)
    lesson = LESSONS[needed.name]
    config = config_of(needed, lesson)
    policy = make_compact(config)
    before = accuracy(policy, config, needed, lesson.measured, drawn=True)
    train(config, policy, tmp_path / "with")
    after = accuracy(policy, config, needed, lesson.measured, drawn=False)
    plain = config_of(needed, Lesson())
    without = make_compact(plain)
    train(plain, without, tmp_path / "without")
    guessed = accuracy(without, plain, needed, lesson.measured, drawn=False)
    told = f"{before:.2f} before, {after:.2f} after, {guessed:.2f} without"
    assert before < CHANCE + 0.2 and after > 0.8 and guessed <= CHANCE + 0.1, told


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fps=8", "look_arguments must be JSON, got 'fps=8'"),
        ("[8]", r"must be objects such as \{\"fps\": 8\}, got '\[8\]'"),
    ],
)
def test_arguments_that_are_no_objects_of_json_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Config.of(look_arguments=("{}", text))


def test_arguments_that_the_recipe_does_not_open_are_refused_when_a_run_begins(tmp_path: Path) -> None:
    config = Config.of(look_arguments=('{"fps": 8}',), recipe="DEFAULT")
    with pytest.raises(
        ValueError, match=r"the recipe opens no argument 'fps' of looks; open are \['region'\]"
    ):
        make_compact(config)


def test_a_checkpoint_knows_how_its_policy_may_look(tmp_path: Path) -> None:
    """Loaded by its path it acts in an environment with the same actions, and answers the same."""
    tasks = "procedural:brief_event?level=0&duration_s=60&count=20&split="
    region = [0.0, 0.0, 0.5, 0.5]
    config = Config.of(
        recipe="FIND",
        tasks=f"{tasks}train",
        eval_tasks=f"{tasks}val",
        windows=(2,),
        look_arguments=("{}", json.dumps({"region": region})),
        moments=1,
        episodes=4,
        group_size=2,
        iterations=1,
        eval_episodes=2,
    )
    policy = make_compact(config)
    train(config, policy, tmp_path)
    loaded = load_policy(tmp_path)
    env = loaded.make_env()
    assert env.action_space.n == 2 * 2 + 1 + 4  # type: ignore[attr-defined]
    assert env.get_wrapper_attr("arguments") == ({}, {"region": region})
    reports = [evaluate(acting, env, episodes=4) for acting in (loaded, Acting(policy))]
    assert reports[0].accuracy == reports[1].accuracy and reports[0].turns == reports[1].turns
