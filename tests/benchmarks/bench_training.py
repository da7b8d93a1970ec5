"""Measures what collecting costs with frame references and with pixels, and where an iteration's time goes.

In one run: turns a second of TorchRL's collector over the same environment, once with references and
once with 32 frames of 224x224 in every TensorDict, under the same policy, which reads neither; turns a
second of whole episodes in lockstep; the parts of a PPO iteration as the run logs them; and where the CPU
time of PPO and GRPO goes. Run by ``make bench``; exits 1 when references are not at least 5 times as fast,
when the parts do not add up to the time from one iteration to the next, or when more than a tenth of PPO's
CPU time is spent outside environment, frames, policy and backward. For GRPO, whose groups share an opening,
which leaves less to share it with, that share is printed.
"""

from __future__ import annotations

import functools
import gc
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector

from agents import train_grpo, train_ppo
from agents.collectors.episodes import EpisodeCollector
from agents.compact.env import make_actor, torchrl_env
from agents.compact.network import CompactPolicy
from agents.compact.run import env_factory, make_compact
from agents.train_ppo import Config, train
from agents.training.run import TrainingRun
from videogym import DiscreteActions, FrameStore, VideoQAEnv
from videogym.observations import Observe

TASKS = "procedural:brief_event?level=0&duration_s=600&count=16"
TARGET = 5.0
SLACK = 0.05  # of the time from one iteration to the next: curves are written between them
OUTSIDE = 0.10  # of the CPU time of an update, at most; TorchRL's loss and the optimizer's step are in it
BOXES: tuple[tuple[type[Any], str, str], ...] = (
    *((DiscreteActions, method, "environment") for method in ("reset", "step")),
    *((VideoQAEnv, method, "environment") for method in ("get_state", "set_state")),
    (FrameStore, "frames", "frames"),
    *((CompactPolicy, method, "policy") for method in ("read", "forward")),
    (torch.Tensor, "backward", "backward"),
)
PARTS = ("collect", "advantage", "loss", "evaluate", "other")


def collector_turns_per_s(observe: Observe, turns: int) -> tuple[float, float]:
    """Turns a second of a collector, and megabytes of a turn in what it yields."""
    env = torchrl_env(DiscreteActions(VideoQAEnv(TASKS, "DEFAULT", observe=observe), windows=16))
    actions = int(env.action_spec.space.n)
    policy = TensorDictModule(
        lambda turn: torch.randint(actions, turn.shape[:-1]), in_keys=["turn"], out_keys=["action"]
    )
    batch = 16
    collector = Collector(
        env, policy, frames_per_batch=batch, total_frames=-1, auto_register_policy_transforms=False
    )
    batches = iter(collector)
    next(batches)  # the first opens videos
    started = time.perf_counter()
    for _ in range(turns // batch):
        data = next(batches)
    seconds = time.perf_counter() - started
    megabytes = sum(leaf.nbytes for leaf in data.values(True, True) if isinstance(leaf, torch.Tensor)) / 1e6
    collector.shutdown()
    return turns / seconds, megabytes / batch


def episodes_turns_per_s(config: Config, batches: int) -> float:
    """Turns a second of whole episodes with the compact policy, which decodes what it is shown."""
    policy = make_compact(config)
    actor = make_actor(policy, sum(config.windows) + config.options)
    collector = EpisodeCollector(env_factory(config, policy), actor, episodes=config.episodes)
    collector.collect(0)
    started = time.perf_counter()
    turns = sum(int((~collector.collect(number)["waiting"]).sum()) for number in range(1, batches + 1))
    seconds = time.perf_counter() - started
    collector.close()
    return turns / seconds


def iteration_seconds(config: Config) -> dict[str, list[float]]:
    """Seconds of every iteration by part, and of the run so far."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, make_compact(config), Path(folder))
        seconds = {name: [0.0] * config.iterations for name in (*PARTS, "total")}
        for name, values in seconds.items():
            lines = (Path(folder) / "log" / "scalars" / f"seconds_{name}.csv").read_text().splitlines()
            for step, value in (line.split(",") for line in lines):
                values[int(step)] = float(value)
    return seconds


class Shares:
    """CPU seconds of this process by the innermost of `BOXES` that runs; ``""``: none does."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._boxes, self._since = [""], 0.0

    def charge(self) -> None:
        """Charge whoever ran since the last time."""
        now = time.process_time()
        self.seconds[self._boxes[-1]] += now - self._since
        self._since = now

    def boxed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function whose CPU time is charged to a box."""

        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            self.charge()
            self._boxes.append(name)
            try:
                return function(*arguments, **options)
            finally:
                self.charge()
                self._boxes.pop()

        return run


def cpu_shares(loop: ModuleType) -> dict[str, float]:
    """Shares of the CPU time of three iterations of a loop with its defaults, without evaluation."""
    config = loop.Config.of(iterations=4, eval_every=99, eval_episodes=1, checkpoint_every=99)
    policy, shares = make_compact(config), Shares()
    gc.collect()
    gc.freeze()  # what earlier measurements left is not for this loop's collector to go through
    real = {(owner, method): getattr(owner, method) for owner, method, _ in BOXES}

    def ended(self: TrainingRun, iteration: int, *_: Any) -> None:
        shares.charge()
        if not iteration:  # it opened the videos
            shares.seconds.clear()

    real[TrainingRun, "end_iteration"] = TrainingRun.end_iteration
    for owner, method, name in BOXES:
        setattr(owner, method, shares.boxed(real[owner, method], name))
    TrainingRun.end_iteration = ended  # type: ignore[method-assign, assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            loop.train(config, policy, Path(folder))
    finally:
        for (owner, method), function in real.items():
            setattr(owner, method, function)
    whole = sum(shares.seconds.values())
    return {name: seconds / whole for name, seconds in shares.seconds.items()}


def main() -> int:
    """Print the tables; a missed target decides the exit status."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # In turns, and the best of each: others may use the machine.
    rounds = [
        (collector_turns_per_s("pixels", 96), collector_turns_per_s("references", 640)) for _ in "123"
    ]
    (pixels, pixel_megabytes), (references, reference_megabytes) = map(max, zip(*rounds, strict=True))
    ratio = references / pixels
    fast = ratio >= TARGET
    config = Config.of(iterations=6, episodes=64, eval_every=3, eval_episodes=50)
    print(f"pixels, turns/s                   {pixels:10.1f}  {pixel_megabytes:8.3f} MB a turn")
    print(f"references, turns/s               {references:10.1f}  {reference_megabytes:8.3f} MB a turn")
    print(f"{'ok  ' if fast else 'MISS'} ratio                       {ratio:10.1f}  target >= {TARGET:g}")
    print(f"whole episodes, decoded, turns/s  {episodes_turns_per_s(config, 5):10.1f}")
    seconds = iteration_seconds(config)
    whole = sum(sum(seconds[name]) for name in PARTS)
    for name in PARTS:
        part = sum(seconds[name])
        print(f"ppo {name:<12} s an iteration   {part / config.iterations:10.4f}  {part / whole:8.1%}")
    print(f"ppo iteration, s                  {whole / config.iterations:10.4f}")
    passed = seconds["total"][-1] - seconds["total"][0]
    gap = abs(passed - sum(sum(seconds[name][1:]) for name in PARTS)) / passed
    exact = gap <= SLACK
    print(f"{'ok  ' if exact else 'MISS'} not in any part             {gap:10.2%}  target <= {SLACK:.0%}")
    outside = {}
    for loop in (train_ppo, train_grpo):
        name, found = loop.__name__.removeprefix("agents.train_"), cpu_shares(loop)
        outside[name] = found.pop("")
        told = ", ".join(f"{box} {share:.1%}" for box, share in sorted(found.items()))
        print(f"{name:<4} CPU outside the boxes         {outside[name]:10.1%}  ({told})")
    lean = outside["ppo"] <= OUTSIDE
    print(f"{'ok  ' if lean else 'MISS'} outside, ppo                {outside['ppo']:10.1%}  target <= 10%")
    return int(not (fast and exact and lean))


if __name__ == "__main__":
    sys.exit(main())
