"""What surrounds the updates of any training run: log, evaluation, checkpoints, resuming.

An iteration follows from the seed, its number and the weights alone, so that a run which was killed and
resumed from a checkpoint ends with the same weights, to the bit, as one that was not (on one machine, in
one process). What is trained, and on what, is not known here.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from videogym.evaluate import NothingScored

from .archive import UnreadableCheckpoint, load_archive, read_metadata, write_archive
from .config_file import config_text
from .interruption import Interrupted, Interruption
from .loggers import RunLogger, Shown
from .options import RENAMED, LoopConfig, options_of
from .provenance import KEY, provenance
from .ranks import all_gather_object, broadcast_from_rank0, is_first, launched
from .sharding import FullStateDict, full_tensor
from .staging import link, remove, sweep, whole_file

log = logging.getLogger(__name__)
VERSION = 1  # of what a checkpoint holds
MAY_CHANGE = (  # from one part of a run to the next
    *("recipe", "prompt_file", "iterations", "collector", "workers", "eval_every", "eval_episodes"),
    *("eval_tasks", "checkpoint_every", "keep_checkpoints", "keep_best", "logger", "threads", "video_root"),
    *("run_name", "conversations_every", "conversations_shown", "allow_untested_vllm"),
    *("judge", "judge_model", "judge_cache", "judge_deadline_s"),  # the recipe's identity tells the judge
    # What fits into memory; sums are then made in another order, and bits differ.
    *("micro_batch_size", "max_concurrent_rollouts", "share_prefixes", "gradient_checkpointing", "device"),
    "pack_tokens",
)
SHOWN = ("reward", "success", "loss")  # metrics beside a progress bar
FOLDER = "{out}/"  # of a run, in paths that are told from there
Span = Callable[[str], AbstractContextManager[None]]  # times what is done in it, by name


class CheckpointMismatch(ValueError):
    """A checkpoint or a result was written by another kind of run."""


class RunDiverged(RuntimeError):
    """A loss or gradient is not finite; nothing was updated with it."""


class TrainingRun:
    """One training run in a folder.

    The folder holds ``log/`` (curves), ``checkpoint`` (the newest), ``best`` and ``checkpoints/`` where
    these are kept, ``config.yaml`` (the config, as a file for ``--config``), ``prompt.toml`` where the
    recipe has a prompt, ``judge.json`` where a judge is named, what a loop and W&B keep, and nothing else.
    A folder with a checkpoint is resumed.

    Args:
        config: of the run.
        out: its folder.
        policy: what is trained.
        optimizer: of its weights.
        memory: modules whose state lasts from batch to batch, such as an exploration bonus.
        evaluate: figures of the policy on held-out tasks; what raises `NothingScored` is passed over.
        began_with: `digest_of_weights` of what it begins with, by the option that names it.

    Raises:
        CheckpointMismatch: the folder's checkpoint is of another recipe, algorithm, version or config, or
            what these name had other weights.
        UnreadableCheckpoint: it is damaged, or holds anything but tensors and plain data.
    """

    def __init__(
        self,
        config: LoopConfig,
        out: Path,
        policy: nn.Module,
        optimizer: torch.optim.Optimizer,
        memory: nn.Module,
        evaluate: Callable[[], Mapping[str, float]],
        began_with: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.out, self.policy = config, out, policy
        parts: dict[str, Any] = {"policy": policy, "optimizer": optimizer, "memory": memory}
        self._shards = [] if not launched() else [FullStateDict(part) for part in parts.values()]
        self._parts = dict(zip(parts, self._shards or parts.values(), strict=True))
        self._identity = {
            "recipe": config.rules.identity,
            "algorithm": _module_name(type(config)),
            "version": VERSION,
            "engine_version": config.engine_version,
            "began_with": dict(began_with or {}),
            "config": {
                option.name: _from_folder(option.of(config), out)
                for option in options_of(type(config))
                if option.name not in MAY_CHANGE
            },
        }
        self._spans: dict[str, float] = {}
        self._evaluate = evaluate
        self.evaluated: Mapping[str, float] = {}  # the last figures; none before there were any
        out.mkdir(parents=True, exist_ok=True)
        self.best: float | None = None  # score of the best evaluation
        self.first_iteration, self.turns, self.seconds, self.cpu_seconds = self._resume()
        if is_first():
            with whole_file(out / "config.yaml") as file:
                file.write(config_text(config).encode())
            if config.rules.prompt is not None:  # for those who read the run's episodes
                with whole_file(out / "prompt.toml") as file:
                    file.write(config.rules.prompt.file_text().encode())
            if config.judging.judge:
                with whole_file(out / "judge.json") as file:
                    file.write(f"{json.dumps(config.judging.replayed())}\n".encode())
            _forget_after(out / "log" / "scalars", self.first_iteration)
            self._logger = RunLogger(
                config.runtime.logger,
                out,
                config.runtime.run_name or out.resolve().name,
                {option.name: str(option.of(config)) for option in options_of(type(config))},
                resumed=self.first_iteration > 0,
            )
        self._started = time.monotonic() - self.seconds
        self._cpu_started = time.process_time() - self.cpu_seconds
        self._memory = memory
        # Of this iteration, in a list: nothing here holds the run, whose files are closed with it.
        self._steps = steps = [0]
        # When one begins, not when it has ended: a signal may come while weights move.
        optimizer.register_step_pre_hook(lambda *_: steps.__setitem__(0, steps[0] + 1))
        self._interruption = Interruption(WeakMethod(self._save_unchanged))
        optimizer.zero_grad()  # a policy that was taught before has gradients of that

    def _resume(self) -> tuple[int, int, float, float]:
        path = self.out / "checkpoint"
        found = broadcast_from_rank0(self._found)
        if found is None:
            return 0, 0, 0.0, 0.0
        if told := _difference(found, self._identity, self.config, self.out):
            raise CheckpointMismatch(f"{path} is of another run: it has {told}; choose another folder")
        if is_first():
            load_archive(path, self._parts)
        for part in self._shards:
            part.scatter()
        best = found.get("best")
        self.best = best if isinstance(best, float) else None
        # Older checkpoints do not say it; one thread takes no more than there were seconds.
        cpu_seconds = found.get("cpu_seconds", found["seconds"])
        return found["iteration"], found["turns"], found["seconds"], cpu_seconds

    def _found(self) -> dict[str, Any] | None:
        """What the folder's checkpoint says about itself; None where there is none."""
        sweep(self.out)
        for pattern in (".checkpoint.new*", "..checkpoint.new.*"):  # what versions before this one left
            for unfinished in self.out.glob(pattern):
                remove(unfinished)
        path = self.out / "checkpoint"
        return _progress(path, read_metadata(path)) if path.exists() else None

    def iterations(self, progress: bool = False) -> Iterator[int]:
        """Numbers of the iterations still to do; before each, all generators are seeded by it.

        Args:
            progress: whether to show a bar.
        """
        left = range(self.first_iteration, self.config.iterations)
        self._bar = tqdm(
            left,
            total=self.config.iterations,
            initial=self.first_iteration,
            desc=str(self._identity["algorithm"]),
            disable=not progress,
        )
        self._interruption.watch()
        for iteration in self._bar:
            self._iteration, self._steps[0] = iteration, 0
            self._remembered = _contents(self._memory)
            self._spans = {}
            self._begun = time.monotonic()
            state = np.random.SeedSequence((self.config.seed, iteration)).generate_state(1)
            torch.manual_seed(int(state[0]))
            yield iteration
        self._interruption.release()
        self._close()

    def _save_unchanged(self) -> bool:
        """Save what was done before the present iteration, if it has changed nothing yet."""
        # Ranks have to agree, which they do at the end of an iteration.
        if self._steps[0] or launched() or _contents(self._memory) != self._remembered:
            return False
        self._bar.close()
        self._take_time()
        self.save(self._iteration)
        return True

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a part of an iteration; logged as ``seconds_NAME``."""
        started = time.monotonic()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # else whoever asks for a result next would be charged
        self._spans[name] = self._spans.get(name, 0.0) + time.monotonic() - started

    def is_due(self, iteration: int, every: int) -> bool:
        """Whether something done every so many iterations is due after this one."""
        return (iteration + 1) % every == 0 or iteration + 1 == self.config.iterations

    def evaluate(self) -> Mapping[str, float]:
        """Figures of the policy on held-out tasks; of episodes that say nothing how many there were."""
        try:
            return self._evaluate()
        except NothingScored as error:  # training goes on: videos and judges may be there the next time
            if is_first():
                log.warning("the held-out tasks say nothing: %s", error)
            return {"eval_cut_rate": 1.0}

    def end_iteration(self, iteration: int, turns: int, values: Mapping[str, float]) -> None:
        """Evaluate and checkpoint where due, and log an iteration."""
        self._steps[0] += 1  # turns are counted from here on, also where no step was made
        self._bar.set_postfix({name: f"{values[name]:.3f}" for name in SHOWN if name in values})
        self.turns += turns
        if self.is_due(iteration, self.config.evaluation.eval_every):
            with self.span("evaluate"):
                self.evaluated = self.evaluate()
            values = {**values, **self.evaluated}
        seconds = time.monotonic() - self._begun
        spans = {f"seconds_{name}": value for name, value in self._spans.items()}
        spans["seconds_other"] = seconds - sum(self._spans.values())
        self._take_time()
        total = {"turns_total": self.turns, "seconds_total": self.seconds, "seconds_iteration": seconds}
        self.log(iteration, {**values, **spans, **total})
        best = self.config.runtime.keep_best and self._is_best(iteration)
        if saved := best or self.is_due(iteration, self.config.runtime.checkpoint_every):
            self.save(iteration + 1, best)
        if any(all_gather_object(self._interruption.asked)):
            self._bar.close()
            self._interruption.release()
            if not saved:
                self.save(iteration + 1)
            self._close()
            raise Interrupted

    def _take_time(self) -> None:
        """Of all parts of the run together."""
        self.seconds = time.monotonic() - self._started
        self.cpu_seconds = time.process_time() - self._cpu_started

    def _is_best(self, iteration: int) -> bool:
        """Whether this iteration's evaluation is the best so far, which it then is."""
        names = [name for name in ("eval_accuracy", "eval_reward") if name in self.evaluated]
        if not names or not self.is_due(iteration, self.config.evaluation.eval_every):
            return False
        score = float(self.evaluated[names[0]])
        if self.best is not None and score <= self.best:
            return False
        self.best = score
        return True

    def provenance(self, iteration: int) -> dict[str, Any]:
        """What a checkpoint of so many iterations knows of its training."""
        algorithm = str(self._identity["algorithm"])
        return provenance(self.config, algorithm, iteration, self.evaluated, self.policy)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point to every named curve."""
        if is_first():
            self._logger.scalars(step, values)

    def show(self, step: int, conversations: Sequence[Shown]) -> None:
        """Give conversations to the logger."""
        if is_first():
            self._logger.conversations(step, conversations)

    def _close(self) -> None:
        if is_first():
            self._logger.close()

    def save(self, iteration: int, best: bool = False) -> None:
        """Write the checkpoint; it replaces the earlier one when it is whole.

        Args:
            iteration: the next one to do.
            best: whether it is the best so far.

        Raises:
            OSError: it cannot be written; the earlier ones are still there.
        """
        for part in self._shards:
            part.gather()
        if not is_first():
            return
        progress = {"iteration": iteration, "turns": self.turns, "best": self.best}
        progress |= {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        states = {name: part.state_dict() for name, part in self._parts.items()}
        about = {**self._identity, **progress, KEY: self.provenance(iteration)}
        kept = self.config.runtime.keep_checkpoints
        # The newest comes last: a run that ends before it is resumed from the earlier one, and writes all.
        places = [self.out / "checkpoints" / f"{iteration:06d}"] if kept > 1 else []
        places += [self.out / "best"] if best else []
        first, *others = [*places, self.out / "checkpoint"]
        write_archive(first, states, about)
        for place in others:
            link(first, place)
        if kept > 1:
            for old in sorted((self.out / "checkpoints").glob("[0-9]*"))[:-kept]:
                old.unlink()


def _contents(memory: nn.Module) -> str:
    """The buffers of a memory, a few numbers; weights change by counted steps, and of ranks nobody asks."""
    if launched():
        return ""
    weights = dict(memory.named_parameters())
    return repr({name: value for name, value in memory.state_dict().items() if name not in weights})


def untimed(name: str) -> AbstractContextManager[None]:
    """A `TrainingRun.span` of no run."""
    return nullcontext()


def _progress(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about itself, if it can be believed."""
    counts = (found.get("iteration"), found.get("turns"))
    sound = all(type(count) is int and count >= 0 for count in counts)
    times = (found.get("seconds"), found.get("cpu_seconds", 0.0))
    sound = sound and all(type(one) in (int, float) for one in times)
    if not sound or not isinstance(found.get("config"), dict):
        raise UnreadableCheckpoint(f"{path} does not say how far its run had come; remove it to begin anew")
    return found


def _from_folder(value: object, out: Path) -> str:
    """An option of a run as its checkpoint has it: a path below its folder, which may move, from there."""
    if isinstance(value, str) and value and os.path.exists(value):
        with suppress(ValueError):
            below = Path(os.path.abspath(value)).relative_to(os.path.abspath(out))
            return f"{FOLDER}{below.as_posix()}" if below.parts else value
    return str(value)


def _is_ours(theirs: str, ours: str, out: Path) -> bool:
    """Whether a path that a checkpoint of before has as it was given is one below the run's folder."""
    if not ours.startswith(FOLDER):
        return False
    below = Path(ours.removeprefix(FOLDER))
    if Path(theirs).parts[-len(below.parts) :] != below.parts:
        return False
    return not os.path.exists(theirs) or os.path.samefile(theirs, out / below)


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any], config: LoopConfig, out: Path) -> str:
    """What tells one run from another, by name; "" if nothing does.

    An option that a checkpoint does not know came later, and by its default a run is as it was without it.
    """
    for key in ("algorithm", "version", "recipe"):
        if theirs.get(key) != ours[key]:
            return f"{key} {theirs.get(key)!r}, this run {ours[key]!r}"
    # Checkpoints of before there was a second one do not say it.
    if (engine := theirs.get("engine_version", 1)) != ours["engine_version"]:
        seeds = "a seed samples other outputs with each"
        return f"engine version {engine}, this run {ours['engine_version']}, and {seeds}"
    old = {option.name: str(option.default) for option in options_of(type(config))}
    old |= {RENAMED.get(name, name): value for name, value in theirs["config"].items()}
    free = {*MAY_CHANGE, *config.ignored}
    names = [name for name in {**old, **ours["config"]} if name not in free]
    pairs = [(name, old.get(name), ours["config"].get(name)) for name in names]
    told = [
        f"{name} {one}, this run {other}"
        for name, one, other in pairs
        if one != other and not _is_ours(str(one), str(other), out)
    ]
    began = theirs.get("began_with", {})  # checkpoints of before do not say it
    told += [
        f"{name} {ours['config'].get(name)}, whose weights have changed since it began"
        for name, digest in ours["began_with"].items()
        if not told and began.get(name, digest) != digest
    ]
    return "; ".join(told)


def _module_name(config: type) -> str:
    """The module of a config's class, also where it is run as a command."""
    name = config.__module__
    spec = getattr(sys.modules[name], "__spec__", None)
    return (spec.name if name == "__main__" and spec else name).rpartition(".")[2]


def _forget_after(scalars: Path, iteration: int) -> None:
    """Drop points of iterations that will be done again; a new run starts with empty curves."""
    for path in scalars.glob("*.csv"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) < iteration]
        with whole_file(path) as file:
            file.write("".join(kept).encode())


def optimizer_step(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    loss: float,
    max_grad_norm: float,
    critic: Sequence[nn.Parameter] = (),
) -> dict[str, float]:
    """Step with the gradients that are there, and drop them.

    Args:
        parameters: that have them; scaled down to a norm together.
        optimizer: of the parameters.
        loss: whose gradients they are; of several ranks, this one's part of it.
        max_grad_norm: the norm.
        critic: parameters of a second model, whose gradients are scaled down by themselves.

    Returns:
        ``loss`` of all ranks, and ``grad_norm`` before it was scaled, with a critic ``grad_norm_critic``.

    Raises:
        RunDiverged: the loss or a gradient is not finite; weights are as before.
    """
    total = sum(all_gather_object(loss))
    together = {"grad_norm": parameters} | ({"grad_norm_critic": critic} if critic else {})
    norms = {
        name: float(full_tensor(torch.nn.utils.clip_grad_norm_(some, max_grad_norm)))
        for name, some in together.items()
    }
    for norm in norms.values():
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise RunDiverged(f"the loss is {total} and its gradient's norm {norm}")
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": total, **norms}


def mean_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means by name over rows that need not have the same names."""
    names = {name for row in rows for name in row}
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in sorted(names)}
