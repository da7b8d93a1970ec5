"""Collectors of rollouts: who plays makes no difference to what is played, nor to what may be learned."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_chat import RECIPE, TASKS, Noise, assert_agrees, load, sampling

from agents.collectors.local import ANEW, open_episodes
from agents.collectors.rollouts import RolloutCollector, make_collector, transformers_actor
from agents.engines.transformers_engine import TransformersEngine
from agents.train_grpo_mllm import Config, train
from agents.vlm.actor import ChatActor
from agents.vlm.records import Record, read_records
from agents.vlm.rollouts import make_chat_env
from videogym import State, Term

FLAGS = "VIDEOGYM_TEST_FLAGS"  # names a folder whose files make things fail, in any process


def flagged(name: str) -> bool:
    """Whether something shall fail now; only one who asks is told so."""
    try:
        (Path(os.environ[FLAGS]) / name).unlink()
    except FileNotFoundError:
        return False
    return True


def judge(before: State, after: State) -> float:
    """A reward term that may be out."""
    if flagged("judge"):
        raise ValueError("the judge is out")
    return 1.0


class Fragile(ChatActor):
    """Dies or fails in the third turn, when it is told to; keeps how many it answered, and where."""

    def answer(self, records: Any, *options: Any) -> list[Record]:
        """As the actor's."""
        self.batches.append(sum(not record.done for record in records))
        self.threads.add(threading.current_thread().name)
        if any(len(record.turns) == 3 for record in records):
            if flagged("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if flagged("policy"):
                raise ArithmeticError("the policy is on fire")
        return super().answer(records, *options)


def fragile(folder: Path) -> ChatActor:
    """An actor that can be made to fail."""
    model = load(folder, Noise())
    actor = Fragile(model, TransformersEngine(model), sampling(model))
    actor.batches, actor.threads = [], set()
    return actor


CONFIG = Config.of(
    recipe=replace(RECIPE, name="JUDGED", terms=(Term("judge", "turn", judge),)),
    tasks=TASKS,
    eval_tasks=f"{TASKS}&split=val",
    eval_episodes=2,
    max_new_tokens=6,
    temperature=0.8,
    seed=3,
    groups=3,
    group_size=2,
    mini_batch_groups=1,
    iterations=2,
    kl_coef=0.0,
)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the flags."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("flags")
        patch.setenv(FLAGS, str(folder))
        yield folder


@pytest.fixture(scope="module")
def ray(flags: Path) -> Iterator[Any]:
    """Ray on this machine, whose workers can import what is here."""
    if not os.environ.get("VIDEOGYM_REQUIRE_RAY"):
        pytest.importorskip("ray")
    import ray

    folders = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[2]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", folders)
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(num_cpus=3, log_to_driver=False)
        yield ray
        ray.shutdown()


def make(kind: Any, folder: Path, **changes: Any) -> tuple[RolloutCollector, ChatActor]:
    """A collector with two workers, and the actor that it follows."""
    actor = fragile(folder)
    options = {"groups": CONFIG.groups, "group_size": CONFIG.group_size, "workers": 2, **changes}
    return make_collector(CONFIG, actor, kind=kind, make_worker=partial(fragile, folder), **options), actor


KINDS = ["local", "async", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.fixture(scope="module", params=KINDS)
def gathered(
    request: pytest.FixtureRequest, flags: Path, checkpoints: dict[str, Path]
) -> Iterator[tuple[RolloutCollector, ChatActor]]:
    """A collector of every kind, with weights pushed."""
    if request.param == "ray":
        request.getfixturevalue("ray")
    torch.set_num_threads(1)
    collector, actor = make(request.param, checkpoints["qwen2_5_vl"])
    collector.update_policy_weights_()
    yield collector, actor
    collector.close()


def check_whole(records: list[Record], version: int) -> None:
    """Every group of the iteration is there once, to the end, sampled by one version."""
    assert [one.sample_index for one in records] == [0, 1] * 3
    names = [one.group for one in records]
    assert names[::2] == names[1::2] and len(set(names)) == 3
    assert all(one.ending and not one.abort_reason for one in records)
    assert {v for one in records for turn in one.turns for v in turn.versions} == {version}
    for first, second in zip(records[::2], records[1::2], strict=True):
        assert first.turns[0].observation == second.turns[0].observation


def test_the_weights_that_were_pushed_are_those_that_sample(
    gathered: tuple[RolloutCollector, ChatActor],
) -> None:
    """Probabilities of sampling are those of the trained model, before and after its weights change."""
    collector, actor = gathered
    first = collector.collect(0)
    check_whole(first, actor.version)
    with torch.no_grad():
        scored = actor.scorer(first)
        assert_agrees(scored, first)
        generator = torch.Generator().manual_seed(1)
        for parameter in actor.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        changed = actor.scorer(first)
    assert (changed.log_probs - scored.log_probs).abs().max() > 0.01, "the change must be felt"
    collector.update_policy_weights_()
    second = collector.collect(1)
    check_whole(second, actor.version)
    with torch.no_grad():
        assert_agrees(actor.scorer(second), second)


def test_a_server_answers_many_threads_at_once(checkpoints: dict[str, Path], flags: Path) -> None:
    """Two groups of two are in play at once: at some time all four are answered in one batch."""
    collector, actor = make("async", checkpoints["qwen2_5_vl"])
    assert isinstance(actor, Fragile)
    try:
        collector.update_policy_weights_()
        check_whole(collector.collect(0), actor.version)
        assert max(actor.batches) == 4, actor.batches
        with torch.no_grad():
            actor.model.model.lm_head.weight.mul_(1.1)
        time.sleep(0.3)  # threads without work go on meanwhile, and must not sample with these weights
        collector.update_policy_weights_()
        check_whole(collector.collect(1), actor.version)
        assert min(actor.batches) > 0, "somebody who waits was answered"
        assert {name.split("-")[0] for name in actor.threads} == {"InferenceServer"}, actor.threads
    finally:
        collector.close()


def opened(records: list[Record]) -> list[tuple[Any, ...]]:
    """What records begin with."""
    return [
        (one.group, one.sample_index, one.task_id, one.head, one.turns[0].observation) for one in records
    ]


def test_the_seed_and_the_iteration_decide_what_is_played(
    gathered: tuple[RolloutCollector, ChatActor], checkpoints: dict[str, Path]
) -> None:
    """Whoever plays, in whatever order iterations come."""
    collector, _ = gathered
    local, _ = make("local", checkpoints["qwen2_5_vl"])
    for iteration in (7, 4):
        assert opened(collector.collect(iteration)) == opened(local.collect(iteration))
    assert opened(local.collect(7)) != opened(local.collect(4))


def test_a_curriculum_is_that_of_the_iteration(checkpoints: dict[str, Path]) -> None:
    """Far from the change each part alone is drawn, in further batches of an iteration as well."""
    long = TASKS.replace("duration_s=60", "duration_s=90")
    parts = [{"tasks": TASKS, "weight": [[2, 1], [3, 0]]}, {"tasks": long, "weight": [[2, 0], [3, 1]]}]
    config = Config.of(recipe=RECIPE, tasks=f"mixture:{json.dumps(parts)}")
    env = make_chat_env(config, load(checkpoints["qwen2_5_vl"]), config.tasks, groups=6)
    for iteration, seconds in ((0, "60"), (2, "60"), (3, "90"), (ANEW, "60"), (3 + 2 * ANEW, "90")):
        opened_tasks = [episode.record.task_id for episode in open_episodes(config, env, iteration)]
        lengths = {env.env.tasks.by_id(task_id).video for task_id in opened_tasks}
        assert all(f"duration_s={seconds}" in video for video in lengths)


@pytest.mark.parametrize(
    ("flag", "message"), [("policy", "the policy is on fire"), ("judge", "the judge is out")]
)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_goes_wrong_is_said(
    kind: str, flag: str, message: str, flags: Path, checkpoints: dict[str, Path]
) -> None:
    """The message of the policy's or the environment's exception reaches the caller; nothing hangs."""
    collector, _ = make(kind, checkpoints["qwen2_5_vl"])
    try:
        collector.update_policy_weights_()
        (flags / flag).touch()
        with pytest.raises(Exception, match=message):
            collector.collect(0)
        assert not (flags / flag).exists()
        if kind == "async":
            with pytest.raises(RuntimeError, match="has been stopped"):
                collector.collect(1)
    finally:
        collector.close()


@pytest.mark.ray
@pytest.mark.parametrize("gathered", ["ray"], indirect=True)
def test_what_goes_wrong_in_a_process_is_said(
    gathered: tuple[RolloutCollector, ChatActor], flags: Path
) -> None:
    """With its type and message; the next iteration is played as if nothing had been."""
    collector, actor = gathered
    for flag, kind, message in (
        ("policy", ArithmeticError, "the policy is on fire"),
        ("judge", ValueError, "the judge is out"),
    ):
        (flags / flag).touch()
        with pytest.raises(kind, match=message):
            collector.collect(0)
        check_whole(collector.collect(1), actor.version)


def unstamped(records: list[Record]) -> list[Record]:
    """The records without versions."""
    return [replace(one, turns=tuple(replace(turn, versions=()) for turn in one.turns)) for one in records]


@pytest.mark.ray
@pytest.mark.parametrize("gathered", ["ray"], indirect=True)
def test_a_worker_that_is_killed_is_replaced(
    gathered: tuple[RolloutCollector, ChatActor], flags: Path
) -> None:
    """By SIGKILL, in its third turn: the iteration is what it would have been, to the last id."""
    collector, actor = gathered
    from agents.collectors.ray_workers import RayCollector

    assert isinstance(collector, RayCollector)
    expected, before = collector.collect(5), collector.process_ids()
    collector.update_policy_weights_()  # forgets what was computed of these very conversations
    (flags / "kill").touch()
    found = collector.collect(5)
    assert not (flags / "kill").exists(), "nobody was killed"
    check_whole(found, actor.version)
    assert unstamped(found) == unstamped(expected)
    after = collector.process_ids()
    assert len(set(before) & set(after)) == 1, "one of the two is another process now"
    check_whole(collector.collect(6), actor.version)
    with torch.no_grad():
        assert_agrees(actor.scorer(found), found)


@pytest.mark.ray
def test_a_share_that_kills_its_worker_again_and_again_is_given_up(ray: Any, flags: Path) -> None:
    """After a first try and three more."""


@pytest.mark.ray
def test_training_collects_with_ray(ray: Any, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """By its config alone: workers load the checkpoint, and get the frozen weights as they are here too."""
    config = CONFIG.with_options(
        recipe="LONGVT_TINY", groups=1, collector="ray", freeze_vision=True, learning_rate=0.0
    )
    actor = transformers_actor(config.with_options(checkpoint=str(checkpoints["qwen2_5_vl"])))
    with torch.no_grad():
        for parameter in actor.model.model.model.visual.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    train(config.with_options(checkpoint=str(checkpoints["qwen2_5_vl"])), actor, tmp_path)
    for number in range(config.iterations):
        records = list(read_records(tmp_path / "records" / f"{number:06d}.jsonl"))
        assert len(records) == config.group_size
        assert {v for one in records for turn in one.turns for v in turn.versions} == {number + 1}
        with torch.no_grad():
            assert_agrees(actor.scorer(records), records, at_least=10)


def test_what_cannot_be_is_refused(checkpoints: dict[str, Path], flags: Path) -> None:
    """Unknown kinds, no workers, and Ray workers with nothing to load."""
    folder = checkpoints["qwen2_5_vl"]
    with pytest.raises(ValueError, match="'multi'"):
        make("multi", folder)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        make("async", folder, workers=0)
    with pytest.raises(ValueError, match=r"config\.model\.checkpoint, which names none"):
        make_collector(CONFIG, fragile(folder), groups=1, group_size=2, kind="ray")


def test_a_missing_ray_is_named(
    checkpoints: dict[str, Path], flags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "agents.collectors.ray_workers", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'videogym\[ray\]'"):
        make("ray", checkpoints["qwen2_5_vl"])


@pytest.mark.ray
def test_ray_says_what_it_lacks(ray: Any, checkpoints: dict[str, Path], flags: Path) -> None:
    """Room for the workers, and weights."""
    with pytest.raises(ValueError, match="workers=4 need 4 CPUs, Ray has 3"):
        make("ray", checkpoints["qwen2_5_vl"], groups=4, workers=4)
    collector, _ = make("ray", checkpoints["qwen2_5_vl"], workers=1)
    try:
        with pytest.raises(RuntimeError, match="no weights were pushed; call sync"):
            collector.collect(0)
    finally:
        collector.close()
