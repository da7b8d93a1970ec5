"""Environments under TorchRL: specs, whole episodes in lockstep, collectors, and faults on the way."""

# ruff: noqa: D102, D103

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import pytest
import torch
from rounding import ROUNDING, assert_close
from small_runs import BROKEN, LOOKING, SMALL, Table, env_with_one_broken_worker, video_number
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import NonTensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type

from agents import train_grpo, train_ppo
from agents.collectors.episodes import EpisodeCollector
from agents.compact.discrete import Acting, DiscretePolicy, PolicyError
from agents.compact.env import EpisodeEnv, make_actor, torchrl_env
from agents.compact.run import (
    RunConfig,
    env_factory,
    episode_metrics,
    make_compact,
    make_env,
    make_episode_env,
    sound_episodes,
)
from agents.training.releveling import TurnRewards
from videogym import DiscreteActions, RewardError, TextActions, VideoError, VideoQAEnv
from videogym.datasets import load_tasks
from videogym.video import UnreadableVideo, Video

IDS = sorted(name for name in gymnasium.registry if name.startswith("videogym/"))
TASKS = "procedural:brief_event?level=0&duration_s=60&count=20"


def discrete_env() -> EnvBase:
    """VideoMTR with 16 windows and 4 options."""
    return torchrl_env(DiscreteActions(gymnasium.make("videogym/VideoMTR-v0", tasks=TASKS)))


def test_registered_ids_are_found() -> None:
    """The ids that all tests here run over are the registered ones."""
    ours = ("VideoMTR", "LongVT", "VideoZoomer", "ParaVT", "EVA", "Find", "VideoQA")
    assert {f"videogym/{name}-v0" for name in ours} <= set(IDS)


@pytest.mark.parametrize("env_id", IDS)
def test_specs_and_rollout(env_id: str) -> None:
    """What an environment gives fits its specs, and random episodes end by the rules."""
    env = torchrl_env(gymnasium.make(env_id, tasks=TASKS))
    check_env_specs(env, seed=0)
    rollout = env.rollout(20)
    # TorchRL's random answer is "a string" and its looks are rarely valid: turns pass all the same.
    assert bool(rollout["next", "terminated"][-1]), f"{env_id}: no end within 20 turns"
    assert not rollout["next", "truncated"].any()


@pytest.mark.parametrize("env_id", IDS)
def test_text_actions(env_id: str) -> None:
    """A text policy acts through TorchRL too."""
    env = torchrl_env(TextActions(gymnasium.make(env_id, tasks=TASKS)))
    assert isinstance(env.action_spec, NonTensor)
    check_env_specs(env, seed=0)


def test_discrete_actions_are_integers() -> None:
    """No one-hot vectors: 16 windows and 4 options are 20 integers."""
    env = discrete_env()
    assert env.action_spec.shape == torch.Size([])
    assert env.action_spec.space.n == 20


def test_texts_survive_the_collector() -> None:
    """Every question that a collector yields is the one about the video beside it."""
    questions = {task.video: task.question for task in load_tasks(TASKS)}
    collector = Collector(discrete_env(), frames_per_batch=12, total_frames=12)
    (batch,) = list(collector)
    videos, asked = batch["video"], batch["question"]
    assert len(videos) == len(asked) == 12
    assert [questions[video] for video in videos] == list(asked)
    assert len(set(videos)) > 1, "the collector never reset"


def test_reported_terms_add_up_to_the_reward() -> None:
    """Nothing is paid that no term names, and trajectory terms are absent before the end."""
    rollout = discrete_env().rollout(40, break_when_any_done=False)
    terms = torch.stack(
        [rollout["next", "terms", name] for name in ("format", "frame_gain", "answer", "gate")]
    )
    assert_close(terms.nansum(0), rollout["next", "reward"])
    running = ~rollout["next", "terminated"]
    assert rollout["next", "terms", "answer"][running].isnan().all(), "an answer is paid before the end"
    assert rollout["next", "frames_shown"].max() <= 32


# --- episodes in lockstep ----------------------------------------------------------------------

CONFIG = RunConfig.of(**{name: value for name, value in SMALL.items() if name != "mini_batch_size"})
TURNS = 3  # of VIDEO_MTR/paper


def episode_env(rows: int = 8, group_size: int = 2, seed: int = 0) -> EpisodeEnv:
    return make_episode_env(CONFIG, Table(), rows=rows, group_size=group_size, seed=seed)


def batch_of(env: EpisodeEnv, policy: DiscretePolicy | None = None) -> TensorDictBase:
    """One batch of random actions, as a collector gathers it."""
    actor = make_actor(policy or Table(), env.actions)
    with set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(env.max_turns, actor, break_when_any_done=False)


@pytest.mark.parametrize("policy", [Table(), make_compact(CONFIG)], ids=["table", "compact"])
def test_the_specs_hold(policy: DiscretePolicy) -> None:
    check_env_specs(make_episode_env(CONFIG, policy, rows=4, group_size=2))


def test_every_row_is_one_whole_episode() -> None:
    batch = batch_of(episode_env(rows=32))
    assert batch.batch_size == (32, TURNS)
    played = ~batch["waiting"].squeeze(-1)
    lengths = played.sum(1)
    assert set(lengths.tolist()) == {1, 2, 3}, "random answers end episodes in any turn"
    for row, length in zip(batch, lengths.tolist(), strict=True):
        assert row["waiting"].squeeze(-1).tolist() == [False] * length + [True] * (TURNS - length)
        assert row["next", "terminated"].squeeze(-1).tolist() == [False] * (length - 1) + [True] * (
            TURNS - length + 1
        )
        assert row["inputs", "turns_left"].squeeze(-1).tolist()[:length] == list(range(3, 3 - length, -1))


def test_rows_of_a_group_share_a_task_and_groups_differ() -> None:
    batch = batch_of(episode_env(rows=12, group_size=3))
    videos, groups = batch["inputs", "video"][:, 0, 0], batch["group"][:, 0, 0]
    assert (batch["group"] == groups[:, None, None]).all(), "a row changed its group"
    for numbers in (videos.reshape(4, 3), groups.reshape(4, 3)):
        assert (numbers == numbers[:, :1]).all()
        assert len(numbers[:, 0].unique()) == 4
    # Of equal first inputs, they go on differently.
    assert len({tuple(actions) for actions in batch["action"].tolist()}) > 4


def test_a_batch_of_a_seed_has_its_tasks_whatever_was_played_before() -> None:
    one, other = episode_env(seed=3), episode_env(seed=3)
    for _ in range(3):
        batch_of(one, Table().always(5))
    after_three = batch_of(one)
    other.next_batch = 3
    at_once = batch_of(other)
    for key in ("group", ("inputs", "video")):
        assert torch.equal(after_three[key][:, 0], at_once[key][:, 0])
    assert not torch.equal(batch_of(other)["inputs", "video"], at_once["inputs", "video"])


def test_no_two_batches_of_any_seeds_share_a_group() -> None:
    numbers = []
    for seed in range(10):
        env = episode_env(rows=4, group_size=1, seed=seed)
        for _ in range(5):
            numbers += env.reset()["group"].flatten().tolist()
    assert len(set(numbers)) == 10 * 5 * 4


def test_waiting_rows_pay_nothing_and_keep_their_inputs() -> None:
    batch = batch_of(episode_env(rows=32))
    waiting = batch["waiting"].squeeze(-1)
    after = batch["next"][waiting]
    assert len(after)
    assert not after["reward"].any()
    assert not after["looked"].any() and not after["repeated"].any() and not after["invalid"].any()
    assert after["tiou"].isnan().all() and after["is_success"].isnan().all()
    assert all(term.isnan().all() for term in after["terms"].values())
    for row in batch:
        last = row["next", "inputs"][int((~row["waiting"]).sum()) - 1]
        assert (row["next", "inputs", "turns_left"][row["waiting"].squeeze(-1)] == last["turns_left"]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_a_wrapper_made_infinite_is_refused_where_it_is_collected(value: float) -> None:
    env = gymnasium.wrappers.TransformReward(make_env(CONFIG, CONFIG.tasks), lambda reward: value)
    rows = EpisodeEnv(env, Table(), rows=2)
    with pytest.raises(RewardError, match=r"the reward of task 'brief_event.*' must be a finite number"):
        batch_of(rows)


def test_a_row_pays_what_the_plain_environment_pays() -> None:
    """Terms, flags and metrics too, although all rows share one environment."""
    batch = batch_of(episode_env(rows=16, group_size=4, seed=5))
    plain = make_env(CONFIG, CONFIG.tasks)
    inner = plain.unwrapped
    assert isinstance(inner, VideoQAEnv)
    ids = {video_number(task.video): task.task_id for task in inner.tasks}
    looked = 0
    for row in batch:
        plain.reset(options={"task_id": ids[int(row["inputs", "video"][0])]})
        for turn in row[~row["waiting"].squeeze(-1)]:
            frames = inner.state.frames_shown
            _, reward, terminated, _, info = plain.step(int(turn["action"]))
            after = turn["next"]
            assert after["reward"].item() == pytest.approx(reward)
            assert after["terminated"].item() == terminated
            assert after["is_success"].item() == info["is_success"]
            assert after["frames_shown"].item() == info["frames_shown"]
            assert after["looked"].item() == (info["frames_shown"] > frames)
            terms = {name: value.item() for name, value in after["terms"].items()}
            assert terms == pytest.approx(dict(info["reward_terms"]), nan_ok=True)
            looked += int(after["looked"])
    assert looked > 5
    sums = torch.stack(list(batch["next", "terms"].values())).nansum(0)
    assert_close(sums, batch["next", "reward"])


def test_the_same_look_again_is_repeated() -> None:
    """The second turn of a policy that always looks at window 2; in the last one nothing is shown."""
    after = batch_of(episode_env(), Table().always(2))["next"]
    assert after["looked"].squeeze(-1).tolist() == [[True, True, False]] * 8
    assert after["repeated"].squeeze(-1).tolist() == [[False, True, False]] * 8
    assert (after["tiou"][:, 0] == after["tiou"][:, 1]).all() and after["tiou"][:, 2].isnan().all()


def test_features_encoded_as_they_come_are_those_of_all_frames_at_once() -> None:
    policy = make_compact(CONFIG)
    env = make_episode_env(CONFIG, policy, rows=1)
    last = batch_of(env, Looks(policy))[0, -1]["next", "inputs"]
    plain = make_env(CONFIG, CONFIG.tasks)
    inner = plain.unwrapped
    assert isinstance(inner, VideoQAEnv)
    shown = last["mask"]
    assert int(shown.sum()) == 32
    matches = []
    for task in inner.tasks:
        observation, _ = plain.reset(options={"task_id": task.task_id})
        for action in (0, 1, 2):
            observation, *_ = plain.step(action)
        matches.append(torch.allclose(policy.read(observation)["features"], last["features"], **ROUNDING))
    assert sum(matches) == 1, "one task of all was played"
    assert not last["features"][~shown].any()


class Looks(DiscretePolicy):
    """Looks at window 0, then 1, then 2, with what another policy reads."""

    def __init__(self, reader: DiscretePolicy) -> None:
        super().__init__()
        self.reads = reader

    def read(self, observation, earlier=None):
        return self.reads.read(observation, earlier)

    def forward(self, inputs):
        turn = (3 - inputs["turns_left"]).long()
        logits = torch.zeros(*inputs.batch_size, 8).scatter(-1, turn, 100.0)
        return logits, torch.zeros(*inputs.batch_size, 1)


def test_pixels_are_refused() -> None:
    env = DiscreteActions(VideoQAEnv(CONFIG.tasks, CONFIG.rules, observe="pixels"), CONFIG.windows)
    with pytest.raises(ValueError, match="without pixels"):
        EpisodeEnv(env, Table(), rows=2)


@pytest.mark.parametrize(("rows", "group_size"), [(0, 1), (4, 0), (4, 3), (-2, 1), (2, 4)])
def test_rows_that_do_not_divide_are_refused(rows: int, group_size: int) -> None:
    env = make_env(CONFIG, CONFIG.tasks)
    with pytest.raises(ValueError, match=f"{rows} and {group_size}"):
        EpisodeEnv(env, Table(), rows=rows, group_size=group_size)


# --- collectors --------------------------------------------------------------------------------


def collector(kind: str, policy: DiscretePolicy, make=None, **arguments) -> EpisodeCollector:
    make = make or env_factory(CONFIG, Table())
    return EpisodeCollector(make, make_actor(policy, 8), kind=kind, episodes=8, **arguments)


@pytest.mark.parametrize("kind", ["single", "parallel", "async"])
def test_batches_are_whole_and_follow_the_weights(kind: str) -> None:
    """(B, K), every group complete, accepted by what trains on it; synchronised weights act."""
    policy = Table()
    gathered = collector(kind, policy, group_size=2)
    try:
        for number in range(3):
            batch = gathered.collect(number)
            assert batch.batch_size == (8, TURNS)
            assert not batch["waiting"][:, 0].any()
            groups = batch["group"][:, 0, 0].tolist()
            assert all(groups.count(group) == 2 for group in groups), f"a group lost an episode: {groups}"
            for group in set(groups):
                rows = batch[batch["group"][:, 0, 0] == group]
                assert len(rows["inputs", "video"][:, 0].unique()) == 1
            shaped = TurnRewards(CONFIG.rules.terms)(batch)
            assert len(shaped) == 8, "a row was no whole episode"
            assert shaped["next", "reward"].isfinite().all()
        assert len(set(batch["action"][~batch["waiting"].squeeze(-1)].tolist())) > 2
        policy.always(5)
        gathered.update_policy_weights_()
        # Asynchronous episodes that began with old weights come first.
        late = range(3, 30) if kind == "async" else [3]
        batches = [gathered.collect(number) for number in late]
        last = [batch["action"][~batch["waiting"].squeeze(-1)].tolist() for batch in batches][-1]
        assert last == [5] * 8, "action 5 answers at once"
    finally:
        gathered.close()


@pytest.mark.parametrize("kind", ["single", pytest.param("parallel", marks=pytest.mark.slow), "async"])
def test_a_run_goes_on_with_tasks_that_were_not_played(kind: str) -> None:
    """In lockstep those that would have come next."""

    def groups(first: int, last: int) -> list[set[int]]:
        gathered = collector(kind, Table().always(5), workers=1, first_iteration=first)
        try:
            return [set(gathered.collect(n)["group"][:, 0, 0].tolist()) for n in range(first, last)]
        finally:
            gathered.close()

    whole, resumed = groups(0, 3), groups(2, 3)
    assert not resumed[0] & (whole[0] | whole[1]), "tasks of iterations that were done are played again"
    assert kind == "async" or resumed == whole[2:]


def test_parallel_workers_play_different_tasks() -> None:
    """Already the seeds say so: worker i of seed s has s x workers + i."""
    videos = [
        [int(row) for row in episode_env(rows=8, group_size=1, seed=seed).reset()["inputs", "video"]]
        for seed in (0, 1)
    ]
    assert videos[0] != videos[1]


def test_a_failing_worker_reaches_the_caller() -> None:
    """With its message; nothing hangs."""
    make = functools.partial(env_with_one_broken_worker, CONFIG, Table())
    gathered = collector("parallel", Table().always(0), make)
    try:
        with pytest.raises(RuntimeError, match="the judge is out\nin reward term 'verdict' of task 'brief"):
            gathered.collect(0)
    finally:
        gathered.close()


@pytest.mark.parametrize("kind", ["single", "async"])
def test_a_failing_reward_term_stops_the_collector(kind: str) -> None:
    make = env_factory(replace(CONFIG, recipe=BROKEN), Table())
    gathered = collector(kind, Table().always(0), make)
    try:
        with pytest.raises(Exception, match="the judge is out"):
            gathered.collect(0)
    finally:
        gathered.close()


def test_an_asynchronous_server_that_fails_reaches_the_caller() -> None:
    gathered = collector("async", Table())
    try:
        bad = Table()
        with torch.no_grad():
            bad.logits.fill_(torch.nan)
        gathered._actor = make_actor(bad, 8)
        gathered.update_policy_weights_()
        with pytest.raises(RuntimeError, match=r"Table gave [0-9]+ logits that are not finite"):
            for number in range(30):
                gathered.collect(number)
    finally:
        gathered.close()


def test_numbers_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="workers x group_size, got 8 and 2 x 8"):
        collector("parallel", Table(), group_size=8)
    with pytest.raises(ValueError, match="group_size, got 8 and 3"):
        collector("async", Table(), group_size=3)
    with pytest.raises(ValueError, match="'multi'"):
        collector("multi", Table())


class Drawing(Table):
    """Its logits pass a dropout and a batch norm; like all modules it begins in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.5)

    def forward(self, inputs: TensorDictBase) -> tuple[torch.Tensor, torch.Tensor]:
        """As the table's, but for the layers that draw or remember."""
        logits, worth = super().forward(inputs)
        rows = self.drop(self.norm((logits + torch.arange(8.0)).reshape(-1, 8)))
        return rows.reshape(logits.shape), worth


@pytest.mark.parametrize("loop", [train_ppo, train_grpo])
def test_the_odds_that_acted_are_those_that_are_trained(loop: ModuleType, tmp_path: Path) -> None:
    """Before the first step all ratios are 1, and no batch moves what the norm remembers."""
    policy = Drawing()
    once = {"iterations": 1, "epochs": 1, "mini_batch_size": 1000}
    loop.train(loop.Config.of(**{**SMALL, **once}), policy, tmp_path)
    for name in ("kl_approx", "clip_fraction"):
        points = (tmp_path / "log" / "scalars" / f"{name}.csv").read_text().splitlines()
        assert [float(point.split(",")[1]) for point in points] == [pytest.approx(0.0, abs=1e-6)]
    assert policy.logits.any() and int(policy.norm.num_batches_tracked) == 0


def test_equal_inputs_have_one_likeliest_action() -> None:
    env = make_env(CONFIG, CONFIG.tasks)
    observation, info = env.reset(seed=0)
    acting = Acting(Drawing())
    assert {acting(observation, info) for _ in range(20)} == {7}


# --- what a policy can get wrong ---------------------------------------------------------------


class Faulty(Table):
    """Puts out what a test says."""

    def __init__(self, logits: torch.Tensor, value: torch.Tensor) -> None:
        super().__init__()
        self.out = logits, value

    def forward(self, inputs):
        return tuple(tensor.expand(*inputs.batch_size, *tensor.shape) for tensor in self.out)


@pytest.mark.parametrize(
    ("logits", "value", "message"),
    [
        (torch.full((8,), torch.nan), torch.zeros(1), "64 logits that are not finite"),
        (torch.zeros(8), torch.full((1,), torch.inf), "8 values that are not finite"),
        (torch.zeros(7), torch.zeros(1), r"logits of shape \(8, 7\); due is \(8, 8\)"),
        (torch.zeros(8), torch.zeros(2), r"values of shape \(8, 2\); due is \(8, 1\)"),
    ],
    ids=["nan", "infinite", "logits", "values"],
)
def test_outputs_that_cannot_be_used_are_named(logits, value, message) -> None:
    with pytest.raises(PolicyError, match=f"Faulty gave {message}"):
        collector("single", Faulty(logits, value)).collect(0)


@pytest.mark.parametrize("action", [-1, 8])
def test_an_unknown_action_is_named(action: int) -> None:
    env = episode_env()
    start = env.reset()
    with pytest.raises(PolicyError, match=f"0 to 7, got {action}"):
        env._step(start.set("action", torch.full((8,), action)))


def test_actions_of_a_wrong_shape_are_named() -> None:
    env = episode_env()
    start = env.reset()
    with pytest.raises(PolicyError, match=r"shape \(8, 1\); due is \(8,\)"):
        env._step(start.set("action", torch.zeros(8, 1, dtype=torch.int64)))


class Breaking(Table):
    """Its second look into any video meets damage, and it cannot read the skim of one video at all."""

    def __init__(self, unreadable: str = "") -> None:
        super().__init__()
        self.unreadable = unreadable

    def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
        """As the table's, unless the video breaks."""
        if observation["video"] == self.unreadable:
            raise UnreadableVideo("clip.mp4: no picture")
        if observation["turn"][0] == 2 and observation["clip_mask"].any():
            raise UnreadableVideo("clip.mp4: damaged at 3.2 s")
        return super().read(observation, earlier)


def test_a_video_that_breaks_in_an_episode_is_a_fault_that_cuts_it() -> None:
    """The turn is spent and pays nothing, no figure is about the policy, and the batch lives."""
    env = make_episode_env(CONFIG, Breaking(), rows=4)
    script = iter([0, 1, 4])  # look, look, answer
    act = TensorDictModule(
        lambda waiting: torch.full(waiting.shape[:-1], next(script)),
        in_keys=["waiting"],
        out_keys=["action"],
    )
    batch = env.rollout(TURNS, act, break_when_any_done=False)
    assert batch["next", "fault"].squeeze(-1).tolist() == [[False, True, False]] * 4
    assert (batch["next", "frames_shown"][:, 1] == batch["next", "frames_shown"][:, 0]).all()
    assert batch["next", "terms", "frame_gain"][:, 1].isnan().all()
    assert batch["waiting"].squeeze(-1).tolist() == [[False, False, True]] * 4
    assert episode_metrics(batch) == {"fault_rate": 0.5}
    assert not len(sound_episodes(batch))


def test_frames_that_are_lost_after_they_were_read_are_a_fault_too() -> None:
    """Action 7 answers with an option that the task lacks: the turn brings no frames."""

    class Losing(Table):
        def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
            if observation["turn"][0] == 1:
                raise UnreadableVideo("clip.mp4: the disk is gone")
            return super().read(observation, earlier)

    env = make_episode_env(replace(CONFIG, options=8), Losing(), rows=2)
    batch = batch_of(env, Table(12).always(11))
    assert batch["next", "fault"][:, 0].all() and batch["waiting"][:, 1].all()


@pytest.mark.parametrize("opened_again", [0, 1])
def test_a_video_that_cannot_be_opened_any_more_is_a_fault_too(
    opened_again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an answer that the task lacks; where a row goes on, or where frames are looked for."""
    env = make_episode_env(replace(CONFIG, options=8), Table(12), rows=3)
    start = env.reset()
    store, gone = env._inner.store, env._snapshots[1].state.task.video
    opened, asked = store.open, []

    def failing(source: str) -> Video:
        asked.append(source)
        if asked.count(gone) > opened_again and source == gone:
            raise UnreadableVideo("clip.mp4: the share is gone")
        return opened(source)

    first = env.step(start.set("action", torch.full((3,), 11)))["next"]
    assert not first["fault"].any() and not first["waiting"].any()
    monkeypatch.setattr(store, "open", failing)
    after = env.step(first.set("action", torch.full((3,), 0)))["next"]
    assert after["fault"].flatten().tolist() == [False, True, False] == after["waiting"].flatten().tolist()
    assert not after["terminated"][1] and after["reward"][1] == 0
    last = env.step(after.set("action", torch.full((3,), 0)))["next"]
    assert not last["fault"].any() and last["waiting"].all(), "it was played to its end"


def test_figures_are_those_of_the_episodes_without_a_fault() -> None:
    """As `videogym.evaluate` counts: an episode with a fault is none, whatever it was paid before."""
    batch = batch_of(make_episode_env(CONFIG, Breaking(), rows=64))
    broken = batch["next", "fault"].flatten(1).any(1)
    assert broken.any() and not broken.all()
    alone = episode_metrics(batch[~broken])
    assert alone.pop("fault_rate") == 0
    metrics = episode_metrics(batch)
    assert metrics.pop("fault_rate") == int(broken.sum()) / int((~batch["waiting"]).sum())
    assert metrics == pytest.approx(alone)


@pytest.mark.parametrize("loop", [train_ppo, train_grpo])
def test_a_fault_never_becomes_a_reward_or_a_fine(loop: ModuleType, tmp_path: Path) -> None:
    """Looking pays at once, and every second look meets damage: a policy that looks learns nothing."""
    trained_on = {task.video for task in load_tasks(SMALL["tasks"])}

    class BreakingInTraining(Breaking):
        def read(self, observation: Mapping[str, Any], earlier: TensorDictBase | None = None) -> TensorDict:
            # What is held out can be evaluated.
            held_out = observation["video"] not in trained_on
            return Table.read(self, observation) if held_out else super().read(observation, earlier)

    config = loop.Config.of(**{**SMALL, "recipe": LOOKING, "learning_rate": 0.1})
    policy = BreakingInTraining().always(0)
    before = policy.logits.tolist()
    loop.train(config, policy, tmp_path)
    assert policy.logits.tolist() == before and not policy.worth.any()
    curves = {path.stem for path in (tmp_path / "log" / "scalars").glob("*.csv")}
    assert {"fault_rate", "turns_total"} <= curves and not {"reward", "success", "entropy"} & curves


def test_tasks_whose_skim_cannot_be_read_are_passed_over() -> None:
    """Every row holds a task that can be shown; a run without any says so."""
    broken = load_tasks(SMALL["tasks"])[0].video
    rows = make_episode_env(CONFIG, Table(), rows=64).reset()["inputs", "video"].flatten().tolist()
    assert video_number(broken) in rows, "64 of 40 tasks miss the broken one: choose another seed"
    env = make_episode_env(CONFIG, Breaking(broken), rows=64)
    assert video_number(broken) not in env.reset()["inputs", "video"].flatten().tolist()
    only = replace(CONFIG, tasks=SMALL["tasks"].replace("count=40", "count=1"))
    with pytest.raises(VideoError, match="100 tasks in a row"):
        # Making the specs reads one observation too.
        make_episode_env(only, Breaking(load_tasks(only.tasks)[0].video), rows=1)


@pytest.mark.parametrize("kind", ["parallel", "async"])
def test_a_weight_by_iteration_needs_a_collector_that_knows_it(kind: str) -> None:
    """Others count batches or episodes of their own, and would follow the curriculum at another pace."""
    parts = [{"tasks": "a.jsonl", "weight": [[0, 1], [9, 2]]}, {"tasks": "b.jsonl"}]
    tasks = f"mixture:{json.dumps(parts)}"
    assert RunConfig(tasks=tasks).collector == "single"
    with pytest.raises(ValueError, match=f"need collector='single', got '{kind}'"):
        RunConfig(tasks=tasks, collector=kind)
    parts[0]["weight"] = 3
    assert RunConfig(tasks=f"mixture:{json.dumps(parts)}", collector=kind).collector == kind
