"""Measures what collecting costs with frame references and with pixels, and where an iteration's time goes.

In one run: turns a second of TorchRL's collector over the same environment, once with references and
once with 32 frames of 224x224 in every TensorDict, under the same policy, which reads neither; turns a
second of whole episodes in lockstep; and the parts of a PPO iteration as the run logs them. Run by
``make bench``; exits 1 when references are not at least 5 times as fast, or when the parts do not add up
to the time from one iteration to the next.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector

from agents.collectors.episodes import EpisodeCollector
from agents.compact.env import make_actor, torchrl_env
from agents.compact.run import env_factory, make_compact
from agents.train_ppo import Config, train
from videogym import DiscreteActions, VideoQAEnv
from videogym.observations import Observe

TASKS = "procedural:brief_event?level=0&duration_s=600&count=16"
TARGET = 5.0
SLACK = 0.05  # of the time from one iteration to the next: curves are written between them
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
    return int(not (fast and exact))


if __name__ == "__main__":
    sys.exit(main())
