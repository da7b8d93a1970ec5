"""The compact policy: what it reads, what it must not see, and shapes that a loss relies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from agents.policies.compact import (
    MAX_WORDS,
    CompactNet,
    CompactPolicy,
    CompactReader,
    Vocabulary,
    stack_contexts,
)
from videogym import DiscreteActions, FrameStore, VideoQAEnv
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
    return CompactReader(store or FrameStore(), vocabulary, windows=16, options=4)


def make_net(reader: CompactReader) -> CompactNet:
    """A net of fixed random weights."""
    torch.manual_seed(0)
    return CompactNet(len(reader.vocabulary), reader.windows, reader.size)


def logits_with(black: Sequence[float], env: DiscreteActions, observation: dict[str, Any]) -> torch.Tensor:
    """Logits of a net of fixed weights where some frames of the video are black."""
    reader = make_reader(env, TamperedStore(black))
    shown = observation["shown_mask"].astype(bool)
    features = torch.zeros(1, len(shown), 64)
    net = make_net(reader)
    features[0, shown] = net.encoder(torch.from_numpy(reader.pixels(observation, shown)))
    return net(features, *stack_contexts([reader.context(observation)]))[0]


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
    reader = make_reader(env, store)
    policy = CompactPolicy(make_net(reader), reader, torch.Generator().manual_seed(0))
    for action in (5, 9):
        observation, _, _, _, info = env.step(action)
        policy(observation, info)
    assert store.asked == set(observation["shown_times_s"][:32].tolist())


def test_masked_frames_have_no_influence(env: DiscreteActions) -> None:
    """Whatever lies behind the mask is not read."""
    observation, _ = env.reset(seed=1)
    reader = make_reader(env)
    net, context = make_net(reader), stack_contexts([reader.context(observation)])
    features = torch.randn(1, 32, 64)
    changed = features.clone()
    changed[:, 16:] = 100.0  # the skim is 16 frames
    torch.testing.assert_close(net(changed, *context), net(features, *context), rtol=0, atol=0)


def test_windows_are_those_of_the_action(env: DiscreteActions) -> None:
    """The frames that look i brings lie in window i."""
    reader = make_reader(env)
    for action in range(16):
        env.reset(seed=2)
        observation, *_ = env.step(action)
        windows = reader.context(observation)["window"]
        assert windows[16:24].tolist() == [action] * 8
        # One skim frame lies in every window of 8 out of 128 pool frames.
        assert windows[:16].tolist() == list(range(16))


def test_permuted_options_permute_their_logits(env: DiscreteActions) -> None:
    """An option is scored by its text, not by its place or letter."""
    observation, _ = env.reset(seed=3)
    reader = make_reader(env)
    net, features = make_net(reader), torch.randn(1, 32, 64)
    texts = [line.partition(". ")[2] for line in observation["options"].split("\n")]
    turned = "\n".join(
        f"{letter}. {text}" for letter, text in zip("ABCD", texts[1:] + texts[:1], strict=True)
    )
    before, _ = net(features, *stack_contexts([reader.context(observation)]))
    after, _ = net(features, *stack_contexts([reader.context({**observation, "options": turned})]))
    torch.testing.assert_close(after[0, 16:], before[0, 16:].roll(-1))
    torch.testing.assert_close(after[0, :16], before[0, :16])


def test_any_batch_shape(env: DiscreteActions) -> None:
    """No batch, one dimension or two: the same logits and values."""
    observation, _ = env.reset(seed=4)
    reader = make_reader(env)
    net = make_net(reader)
    context = stack_contexts([reader.context(observation)] * 6)
    features = torch.randn(6, 32, 64)
    logits, value = net(features, *context)
    assert logits.shape == (6, 20) and value.shape == (6, 1)
    nested = net(features.unflatten(0, (2, 3)), *(entry.unflatten(0, (2, 3)) for entry in context))
    torch.testing.assert_close(nested[0].flatten(0, 1), logits)
    alone = net(features[4], *(entry[4] for entry in context))
    torch.testing.assert_close(alone[0], logits[4])
    torch.testing.assert_close(alone[1], value[4])


def test_the_critic_does_not_shape_the_actor(env: DiscreteActions) -> None:
    """Gradients of the value stay in the value head."""
    observation, _ = env.reset(seed=5)
    reader = make_reader(env)
    net = make_net(reader)
    net(torch.randn(1, 32, 64), *stack_contexts([reader.context(observation)]))[1].sum().backward()
    moved = {name.partition(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert moved == {"value"}


def test_vocabulary() -> None:
    """Words get numbers in alphabetical order, unknown ones 1, padding 0."""
    vocabulary = Vocabulary.of(["What colour?", "Sky blue."])
    assert vocabulary.words == ("blue", "colour", "sky", "what")
    assert vocabulary.ids("Which sky-blue").tolist()[:4] == [1, 4, 2, 0]
    assert vocabulary.ids("blue " * 100).tolist() == [2] * MAX_WORDS
    assert len(vocabulary) == 6


def test_the_net_is_small(env: DiscreteActions) -> None:
    """Small enough to learn in a minute on one core."""
    count = sum(parameter.numel() for parameter in make_net(make_reader(env)).parameters())
    assert 50_000 < count < 200_000


def test_drawn_actions_follow_the_generator(env: DiscreteActions) -> None:
    """Equal generators draw equal actions."""
    observation, info = env.reset(seed=6)
    reader = make_reader(env)
    net = make_net(reader)
    runs = [
        [policy(observation, info) for _ in range(10)]
        for policy in (
            CompactPolicy(net, reader, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
        )
    ]
    assert runs[0] == runs[1] != runs[2]
    assert np.unique(runs[0]).size > 1
