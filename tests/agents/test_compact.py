"""The compact policy: what it reads, what it must not see, and shapes that a loss relies on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rounding import assert_close

from agents.compact.discrete import Acting
from agents.compact.network import MAX_WORDS, CompactPolicy, CompactReader, Vocabulary, stack_contexts
from videogym import DiscreteActions, FrameStore, VideoQAEnv
from videogym.recipes import FIND
from videogym.video import FrameBatch

TASKS = "procedural:brief_event?level=0&duration_s=600&count=20"


class TamperedStore(FrameStore):
    """Blackens the frames at some times, and remembers all times asked for."""

    def __init__(self, black: Sequence[float] = ()) -> None:
        super().__init__()
        self.black, self.asked = set(black), set[float]()

    def frames(self, source: str, times_s: Sequence[float] | None = None, **options: Any) -> FrameBatch:
        """As the store's, tampered with."""
        batch = super().frames(source, times_s, **options)
        self.asked |= set(batch.pts_s.tolist())
        pixels = batch.pixels.copy()
        pixels[[t in self.black for t in batch.pts_s.tolist()]] = 0
        return FrameBatch(pixels, batch.pts_s, batch.damaged)


@pytest.fixture
def env() -> DiscreteActions:
    """A started VideoMTR episode about ten minutes."""
    env = DiscreteActions(VideoQAEnv(TASKS, "VIDEO_MTR/paper"))
    env.reset(seed=0)
    return env


def make_reader(env: DiscreteActions, store: FrameStore | None = None) -> CompactReader:
    """A reader that knows the words of the tasks."""
    tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
    vocabulary = Vocabulary.of(text for task in tasks for text in (task.question, *task.options))
    return CompactReader(store or FrameStore(), vocabulary, windows=(16,), options=4)


def make_policy(reader: CompactReader) -> CompactPolicy:
    """A policy of fixed random weights."""
    torch.manual_seed(0)
    return CompactPolicy(reader)


def logits_with(black: Sequence[float], env: DiscreteActions, observation: dict[str, Any]) -> torch.Tensor:
    """Logits of a policy of fixed weights where some frames of the video are black."""
    policy = make_policy(make_reader(env, TamperedStore(black)))
    return policy(policy.read(observation).unsqueeze(0))[0]


def test_actions_depend_on_shown_frames_and_on_no_others(env: DiscreteActions) -> None:
    """Blackening shown frames changes the logits; blackening all others changes nothing."""
    observation, *_ = env.step(3)
    shown = set(observation["shown_times_s"][:24].tolist())
    unshown = set(observation["pool_times_s"].tolist()) - shown
    assert len(unshown) == 128 - 24 + 1  # the first frame of a window may be the skim's
    intact = logits_with((), env, observation)
    torch.testing.assert_close(logits_with(sorted(unshown), env, observation), intact, rtol=0, atol=0)
    for time in sorted(shown)[::6]:
        assert not torch.equal(logits_with([time], env, observation), intact), f"frame {time} s is ignored"


def test_the_policy_asks_for_shown_frames_only(env: DiscreteActions) -> None:
    """No other frame is ever resolved."""
    store = TamperedStore()
    acting = Acting(make_policy(make_reader(env, store)), torch.Generator().manual_seed(0))
    for action in (5, 9):
        observation, _, _, _, info = env.step(action)
        acting(observation, info)
    assert store.asked == set(observation["shown_times_s"][:32].tolist())


def test_masked_frames_have_no_influence(env: DiscreteActions) -> None:
    """Whatever lies behind the mask is not read."""
    observation, _ = env.reset(seed=1)
    reader = make_reader(env)
    policy, context = make_policy(reader), stack_contexts([reader.context(observation)])
    features = torch.randn(1, 32, 64)
    changed = features.clone()
    changed[:, 16:] = 100.0  # the skim is 16 frames
    torch.testing.assert_close(
        policy.score(changed, *context), policy.score(features, *context), rtol=0, atol=0
    )


def test_cells_are_those_of_the_action(env: DiscreteActions) -> None:
    """The frames that look i brings lie in the two halves of window i: cells 2i and 2i + 1."""
    reader = make_reader(env)
    for action in range(16):
        env.reset(seed=2)
        observation, *_ = env.step(action)
        cells = reader.context(observation)["cell"]
        assert cells[16:24].tolist() == [2 * action] * 4 + [2 * action + 1] * 4
        # One skim frame lies in every window of 8 out of 128 pool frames.
        assert (cells[:16] // 2).tolist() == list(range(16))


@pytest.mark.parametrize("recipe", ["VIDEO_MTR/paper", "DEFAULT"])
def test_cells_of_several_scales_follow_the_smallest_windows(recipe: str) -> None:
    """Frames brought by a look lie in its cells, with a pool and without: 8 cells over 4 and 2 windows."""
    env = DiscreteActions(VideoQAEnv(TASKS, recipe), (2, 4))
    reader = replace(make_reader(env), windows=(2, 4))
    assert reader.cells == 8
    for action in range(6):
        env.reset(seed=2)
        observation, *_ = env.step(action)
        new = observation["shown_turns"] > 0
        cells = reader.context(observation)["cell"][new].tolist()
        due = range(4 * action, 4 * action + 4) if action < 2 else range(2 * action - 4, 2 * action - 2)
        # A crop also brings the frame at its end, where the next cell begins.
        assert set(cells[:-1]) == set(due) and cells == sorted(cells), f"look {action} brought {cells}"


def test_logits_of_looks_are_in_the_order_of_the_actions() -> None:
    """Windows by the first arguments, windows by the second, the search, the options."""
    rules = replace(FIND.rules, crop_arguments=("fps",))
    recipe = replace(FIND, name="ASKED", rules=rules)
    env = DiscreteActions(VideoQAEnv(TASKS, recipe), (2, 3), 4, ({}, {"fps": 8}), moments=1)
    observation, _ = env.reset(seed=2)
    policy = make_policy(replace(make_reader(env), windows=(2, 3), variants=2, searches=True))
    with torch.no_grad():
        for number, head in enumerate((*policy.look, policy.search[-1], policy.answer_now[-1])):
            head.weight.zero_()
            head.bias.copy_(torch.arange(len(head.bias)) * 10.0 + number * 100.0)
        policy.words.weight.zero_()  # options are alike
        logits, _ = policy(policy.read(observation).unsqueeze(0))
    looks = [0, 0, 100, 100, 100, 10, 10, 110, 110, 110, 200]
    assert logits[0].tolist() == [float(value) for value in (*looks, *[300] * 4)]
    assert len(looks) == env.looks and [env.decode(at).fps for at in (4, 5)] == [None, 8]  # type: ignore[attr-defined]
    again = CompactPolicy.of(json.loads(json.dumps(policy.described())), FrameStore())
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again(again.read(observation).unsqueeze(0))[0], logits)


def test_a_policy_of_several_scales_scores_every_window_and_option() -> None:
    """2 and 4 windows and 4 options are 10 logits; blackening a frame can move any of them."""
    env = DiscreteActions(VideoQAEnv(TASKS, "DEFAULT"), (2, 4))
    observation, _ = env.reset(seed=2)
    reader = replace(make_reader(env, TamperedStore()), windows=(2, 4))
    logits, value = make_policy(reader)(make_policy(reader).read(observation).unsqueeze(0))
    assert logits.shape == (1, env.action_space.n) == (1, 10) and value.shape == (1, 1)
    dark = replace(reader, store=TamperedStore(observation["shown_times_s"][:32].tolist()))
    other, _ = make_policy(dark)(make_policy(dark).read(observation).unsqueeze(0))
    assert (logits != other).all()


def test_reading_on_is_reading_anew(env: DiscreteActions) -> None:
    """What is kept of earlier turns saves decoding, and changes nothing."""
    store = TamperedStore()
    policy, earlier = make_policy(make_reader(env, store)), None
    observation, _ = env.reset(seed=7)
    for action in (4, 11):
        earlier = policy.read(observation, earlier)
        observation, *_ = env.step(action)
    store.asked.clear()
    on, times = policy.read(observation, earlier), observation["shown_times_s"]
    assert store.asked == set(times[24:32].tolist()), "only the last look is new"
    anew = policy.read(observation)
    for name, value in anew.items():
        assert_close(on[name], value)


def test_permuted_options_permute_their_logits(env: DiscreteActions) -> None:
    """An option is scored by its text, not by its place or letter."""
    observation, _ = env.reset(seed=3)
    reader = make_reader(env)
    policy, features = make_policy(reader), torch.randn(1, 32, 64)
    texts = [line.partition(". ")[2] for line in observation["options"].split("\n")]
    turned = "\n".join(
        f"{letter}. {text}" for letter, text in zip("ABCD", texts[1:] + texts[:1], strict=True)
    )
    before, _ = policy.score(features, *stack_contexts([reader.context(observation)]))
    after, _ = policy.score(features, *stack_contexts([reader.context({**observation, "options": turned})]))
    assert_close(after[0, 16:], before[0, 16:].roll(-1))
    assert_close(after[0, :16], before[0, :16])


def test_any_batch_shape(env: DiscreteActions) -> None:
    """No batch, one dimension or two: the same logits and values."""
    observation, _ = env.reset(seed=4)
    reader = make_reader(env)
    policy = make_policy(reader)
    context = stack_contexts([reader.context(observation)] * 6)
    features = torch.randn(6, 32, 64)
    logits, value = policy.score(features, *context)
    assert logits.shape == (6, 20) and value.shape == (6, 1)
    nested = policy.score(features.unflatten(0, (2, 3)), *(entry.unflatten(0, (2, 3)) for entry in context))
    assert_close(nested[0].flatten(0, 1), logits)
    alone = policy.score(features[4], *(entry[4] for entry in context))
    assert_close(alone[0], logits[4])
    assert_close(alone[1], value[4])


def test_the_critic_does_not_shape_the_actor(env: DiscreteActions) -> None:
    """Gradients of the value stay in the value head."""
    observation, _ = env.reset(seed=5)
    reader = make_reader(env)
    policy = make_policy(reader)
    policy.score(torch.randn(1, 32, 64), *stack_contexts([reader.context(observation)]))[1].sum().backward()
    moved = {name.partition(".")[0] for name, p in policy.named_parameters() if p.grad is not None}
    assert moved == {"value"}


def test_vocabulary() -> None:
    """Words get numbers in alphabetical order, unknown ones 1, padding 0."""
    vocabulary = Vocabulary.of(["What colour?", "Sky blue."])
    assert vocabulary.words == ("blue", "colour", "sky", "what")
    assert vocabulary.ids("Which sky-blue").tolist()[:4] == [1, 4, 2, 0]
    assert vocabulary.ids("blue " * 100).tolist() == [2] * MAX_WORDS
    assert len(vocabulary) == 6


def test_the_policy_is_small(env: DiscreteActions) -> None:
    """Small enough to learn in a minute on one core."""
    count = sum(parameter.numel() for parameter in make_policy(make_reader(env)).parameters())
    assert 50_000 < count < 200_000


def test_drawn_actions_follow_the_generator(env: DiscreteActions) -> None:
    """Equal generators draw equal actions."""
    observation, info = env.reset(seed=6)
    policy = make_policy(make_reader(env))
    runs = [
        [acting(observation, info) for _ in range(10)]
        for acting in (Acting(policy, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert np.unique(runs[0]).size > 1


def test_without_a_generator_the_likeliest_action_is_taken(env: DiscreteActions) -> None:
    """It is the highest logit, always."""
    observation, info = env.reset(seed=6)
    policy = make_policy(make_reader(env))
    likeliest = int(policy(policy.read(observation).unsqueeze(0))[0].argmax())
    assert {Acting(policy)(observation, info) for _ in range(5)} == {likeliest}
