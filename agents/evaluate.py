"""How good a trained language model is: every task once by its likeliest outputs.

What was played is kept as `agents.vlm.records` and, the same episodes, as traces, so that ``videogym
report`` shows an evaluation and ``videogym diff`` compares two of them task by task. Figures are those of
`agents.vlm.evaluation.rollout_metrics`, with the intervals of `videogym.evaluate`.

Run ``python -m agents.evaluate --checkpoint runs/grpo/model --recipe LONGVT_TINY --tasks SOURCE --out
runs/eval``, with the window and the bounds that the model was trained with. ``torchrun --nproc-per-node N
-m agents.evaluate ...`` divides the tasks among N processes, each with the whole model; several servers,
``--server URL,URL``, divide them too. The same command resumes an evaluation that was stopped, task by
task; files of an earlier one are replaced when all is played.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from tqdm import tqdm

from videogym import FrameStore, Task
from videogym.cost import cost_table
from videogym.datasets import load_tasks, require_unseen
from videogym.evaluate import task_digest
from videogym.grouping import Groups, require_known, table
from videogym.intervals import Estimate
from videogym.judging import EndpointError
from videogym.mistakes import MENDABLE

from .engines.base import EngineError
from .policies import evaluate_compact, is_compact, of_checkpoint
from .tools.traces import traces_of, write_traces
from .training.bounds import CountOrNone
from .training.command import interruptible, one_line, require_folder
from .training.config_file import blamed, parse_with_config
from .training.options import add_options, from_options, options_of, quiet_libraries
from .training.ranks import (
    all_gather_object,
    destroy_process_group,
    init_distributed,
    is_first,
    launched,
    map_across_ranks,
    rank,
    reported,
    size,
)
from .training.staging import whole_file
from .vlm.actor import ChatActor
from .vlm.config import EVALUATED_AT_ONCE, ChatConfig, tell_prompt
from .vlm.env import ChatEnv
from .vlm.estimates import costs, estimates, grouped
from .vlm.evaluation import greedy
from .vlm.played import PlayedFiles, is_unjudged, weights_digest
from .vlm.policy import checkpoint_of, load_trained, make_actor, require_device
from .vlm.records import Record, RecordError, write_records
from .vlm.rollouts import make_chat_env, play_tasks

OPTIONS = (
    *("checkpoint", "recipe", "prompt_file", "tasks", "video_root", "episodes", "trained_on"),
    *("device", "dtype"),
    *("video_form", "window", "max_new_tokens", "max_context", "max_concurrent_rollouts"),
    *("judge", "judge_model", "judge_cache", "judge_deadline_s", "threads", "server", "by"),
    "allow_untested_vllm",
)
log = logging.getLogger(__name__)
REFUSALS: tuple[type[Exception], ...] = (*MENDABLE, EngineError)  # of what an evaluation is given
# Settings that may change when an evaluation is resumed: they decide about no episode.
_FREE = (
    *("device", "max_concurrent_rollouts", "threads", "server", "by", "trained_on", "video_root"),
    "allow_untested_vllm",
    *("judge", "judge_model", "judge_cache", "judge_deadline_s"),  # the recipe's identity tells the judge
)
_WORDS = {"hit_rate": "hit rate", "invalid_rate": "turns refused", "cut_rate": "episodes cut"}
_NAMED = 5  # tasks that are named


@dataclass(frozen=True)
class Config(ChatConfig):
    """What an evaluation depends on: the `OPTIONS`. Of `ChatConfig` the rest is for training."""

    trains: ClassVar[bool] = False

    recipe: str = ""
    """Recipe of all episodes, or its name, such as LONGVT/paper."""
    tasks: str = ""
    """Source of the tasks that are evaluated."""
    episodes: CountOrNone = 0
    """Number of tasks that are played, the first ones; 0: all."""
    trained_on: str = ""
    """Source of the training tasks: evaluating on their videos is refused; empty: not checked."""
    server: str = ""
    """URL of a vLLM that samples, see `agents.engines.vllm_server`, or several with commas between, which
    share the tasks; empty: the model does."""
    by: str = ""
    """Fields of the tasks' metadata by which accuracy is told too, with commas between; empty: none."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: checkpoint, recipe or tasks are not named, or a number is out of range.
        """
        named = {"checkpoint": self.model.checkpoint, "recipe": self.recipe, "tasks": self.tasks}
        for name, value in named.items():
            if not value:
                raise ValueError(f"name the {name}: an evaluation has none by default")
        super().__post_init__()

    @property
    def names(self) -> list[str]:
        """The fields of metadata, each once."""
        return list(dict.fromkeys(name.strip() for name in self.by.split(",") if name.strip()))

    @property
    def at_once(self) -> int:
        """Episodes in lockstep."""
        return self.memory.max_concurrent_rollouts or EVALUATED_AT_ONCE


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, ready to be played."""

    config: Config
    actor: ChatActor
    env: ChatEnv
    tasks: tuple[Task, ...]  # those that can be played
    left_out: dict[str, str]  # task id -> cause, for the others: a bad video, or no room for the question
    unplayable: tuple[Task, ...] = ()  # those
    others: tuple[tuple[ChatActor, ChatEnv], ...] = ()  # of further servers

    def play(self, progress: bool = False, files: PlayedFiles | None = None) -> list[Record]:
        """One episode of every task, in order; those that the files have are not played again.

        Args:
            progress: whether to show how many are played, on the first rank.
            files: take every episode as soon as it has ended; under torchrun there must be some, each
                rank plays a share, and all get what all have played.

        Raises:
            EngineError: an engine failed, of several servers all. What has ended is in the files.
        """
        done = {} if files is None else files.done
        left = [task.task_id for task in self.tasks if task.task_id not in done][rank() :: size()]
        with tqdm(total=len(left), desc="episodes", disable=not (progress and is_first())) as bar:

            def ended(record: Record) -> None:
                done[record.task_id] = record
                if files is not None:
                    files.add(record)
                bar.update()

            self._share_out(left, ended)
        if files is not None and launched():
            all_gather_object(None)  # wait for all
            done = files.read()
        return [done[task.task_id] for task in self.tasks]

    def _share_out(self, task_ids: Sequence[str], ended: Callable[[Record], object]) -> None:
        """Let every server take tasks as it gets ready; those of one that dies go to the others."""
        alive = [(self.actor, self.env), *self.others]
        some = max(1, min(self.config.at_once, -(-len(task_ids) // len(alive))))
        chunks = deque(list(task_ids[i : i + some]) for i in range(0, len(task_ids), some))

        def work(player: tuple[ChatActor, ChatEnv]) -> None:
            while chunks:
                try:
                    chunk = chunks.popleft()
                except IndexError:  # another was faster
                    return
                left = dict.fromkeys(chunk)

                def over(record: Record, left: dict[str, None] = left) -> None:
                    del left[record.task_id]
                    ended(record)

                try:
                    deque(play_tasks(player[1], greedy(player[0]), chunk, some, over), maxlen=0)
                except EngineError as error:
                    chunks.append(list(left))
                    alive.remove(player)
                    if not alive:
                        raise
                    log.warning("a server is left out, the others play its tasks: %s", error)
                    return

        if len(alive) == 1:  # here, where torch has the threads that it was told to have
            work(alive[0])
            return
        with ThreadPoolExecutor(len(alive)) as threads:
            while chunks:  # once more where the last server to work died and others had finished
                list(threads.map(work, list(alive)))

    def grouped(self, records: Sequence[Record], name: str) -> Groups:
        """See `agents.vlm.estimates.grouped`."""
        return grouped(records, self.tasks, self.unplayable, name)


def prepare(config: Config) -> Evaluation:
    """Load the model and open every task, so that what cannot be used is known before anything is played.

    Raises:
        TrainedOnError: tasks ask about videos that were trained on.
        ValueError: there is no such recipe, tasks cannot be read, the device cannot be used, the
            checkpoint is no model that can be loaded, or no task can be played.
        EngineError: the server is out of reach, or of an untested version.
        OSError: a file is missing.
    """
    servers = [url.strip() for url in config.server.split(",") if url.strip()]
    if launched() and servers:
        raise ValueError("torchrun is for the model itself; several servers need one process, plain python")
    _ = config.rules  # the cheap questions first
    tasks = load_tasks(config.tasks, config.root)[: config.episodes or None]
    require_known(config.names, (task.metadata for task in tasks))
    if config.trained_on:
        require_unseen(tasks, load_tasks(config.trained_on, config.root))
    init_distributed(config.model.device)
    require_device(config.model.device)
    try:
        model = load_trained(config, FrameStore(video_root=config.root))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())  # transformers says it in several lines
        raise ValueError(f"{config.model.checkpoint} is no model that can be loaded: {why}") from error
    players = []
    for server in servers or [""]:
        actor = make_actor(config, model, server)
        if server:  # it may have other weights
            actor.update_weights()
        players.append((actor, make_chat_env(config, model, config.tasks, groups=config.at_once)))
    (actor, env), *others = players
    reasons = map_across_ranks(tasks, lambda some: [env.open_task(t.task_id).abort_reason for t in some])
    left_out = {task.task_id: why for task, why in zip(tasks, reasons, strict=True) if why}
    playable = tuple(task for task in tasks if task.task_id not in left_out)
    if not playable:
        raise ValueError(
            f"none of {len(tasks)} tasks can be played, such as {next(iter(left_out.values()))}"
        )
    unplayable = tuple(task for task in tasks if task.task_id in left_out)
    return Evaluation(config, actor, env, playable, left_out, unplayable, tuple(others))


def settings(evaluation: Evaluation) -> dict[str, Any]:
    """What decides about the episodes of an evaluation, in JSON values."""
    config = evaluation.config
    asked = [f"{task.task_id} {task.video} {task_digest(task)}" for task in evaluation.tasks]
    decides = [one for one in options_of(Config) if one.name in OPTIONS and one.name not in _FREE]
    told = {option.name: option.of(config) for option in decides}
    return told | {
        "recipe": config.rules.identity,
        "weights": weights_digest(str(checkpoint_of(config.model.checkpoint))),
        "questions": hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12],
    }


def write(out: Path, records: Sequence[Record], config: Config) -> None:
    """Write the episodes to a folder: ``played/records.jsonl``, and as ``traces.jsonl``.

    Traces of an earlier evaluation go first: at no moment do those of one stand beside another's records.
    """
    (out / "traces.jsonl").unlink(missing_ok=True)
    # Not where a training run has its records: the folder may be one's, and nobody shall learn from these.
    write_records(out / "played" / "records.jsonl", records)
    traces = traces_of(
        records,
        config.tasks,
        out.resolve().name,
        config.root,
        config.rules.prompt,
        config.judging.make(asks=False),
    )
    write_traces(out / "traces.jsonl", traces)


def write_metrics(path: Path, records: Sequence[Record], evaluation: Evaluation) -> None:
    """Write all figures as JSON: estimates, cost, groups, and what was left out."""
    config = evaluation.config
    row = {
        "checkpoint": config.model.checkpoint,
        "recipe": config.rules.identity,
        "tasks": config.tasks,
        "episodes": len(records),
        "metrics": {n: asdict(one) for n, one in estimates(records, evaluation.tasks).items()},
        "cost": {name: asdict(one) for name, one in costs(records).items()},
        "groups": {
            name: asdict(grouped(records, evaluation.tasks, evaluation.unplayable, name))
            for name in config.names
        },
        "abstained": sum(is_unjudged(record) for record in records),
        "left_out": evaluation.left_out,
    }
    with whole_file(path) as file:
        file.write(f"{json.dumps(row, indent=2)}\n".encode())


def told(found: dict[str, Estimate], evaluation: Evaluation, count: int, abstained: int = 0) -> str:
    """The figures as lines, terms below the reward that they make up.

    Args:
        found: see `estimates`.
        evaluation: that was played.
        count: episodes.
        abstained: of these, whose answer the judge did not judge.
    """
    terms = [name for name in found if name in evaluation.env.term_names]
    after = ("turns", "looks", "tokens", "invalid_rate", "cut_rate")
    order = ("accuracy", "hit_rate", "reward", *terms, *after)
    lines = [f"{count} episodes of {evaluation.config.rules.identity}, 95 % intervals"]
    for name in (name for name in order if name in found):
        words = f"  {name}" if name in terms else _WORDS.get(name, name)
        lines.append(f"  {words:<16}{found[name]}")
    if found["cut_rate"].mean:
        cut = round(found["cut_rate"].mean * count)
        lines.append(
            f"{cut} episodes were cut and count in no other figure, but a full context as no right answer"
        )
    if found["cut_rate"].mean and abstained:
        lines.append(f"{abstained} of these were cut because the judge abstained")
    if evaluation.left_out:
        lines.append(f"{len(evaluation.left_out)} tasks left out: they cannot be played")
        lines += [f"  {task_id}: {cause}" for task_id, cause in list(evaluation.left_out.items())[:_NAMED]]
    return "\n".join(lines) + "\n"


@reported
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about = "folder of what was played (default: evaluation, in the folder of the checkpoint's run)"
    parser.add_argument("--out", type=Path, help=about)
    add_options(parser, Config, OPTIONS)
    arguments = parse_with_config(parser, beneath=of_checkpoint)
    quiet_libraries()
    resume = "The same command resumes the evaluation in"
    with interruptible(lambda: f"{resume} {arguments.out}"), one_line(parser, RecordError):
        command(parser, arguments)


def command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Evaluate what the command names, write it and tell it."""
    try:
        if arguments.out is None:
            raise ValueError("name the folder of what was played: --out")
        require_folder(arguments.out)
        if arguments.checkpoint and is_compact(Path(arguments.checkpoint)):
            sys.stdout.write(f"{evaluate_compact(arguments)}\n")
            sys.stdout.write(f"The result is {arguments.out / 'result.json'}\n")
            return
        config = from_options(Config, vars(arguments))
        if is_first():
            tell_prompt(config)
        torch.set_num_threads(config.runtime.threads)
        evaluation = prepare(config)
        files = PlayedFiles(arguments.out / "played", settings(evaluation))
    except REFUSALS as error:
        parser.error(blamed(error, arguments.config))
    try:
        records = evaluation.play(progress=True, files=files)
    except (EngineError, EndpointError) as error:
        if isinstance(error, EngineError) and not config.server:
            raise
        sys.exit(f"{error}\nThe same command resumes the evaluation in {arguments.out}")
    finally:
        for actor, _ in ((evaluation.actor, evaluation.env), *evaluation.others):
            actor.engine.close()
    if is_first():
        conclude(arguments.out, records, evaluation)
        files.finish()
    destroy_process_group()


def conclude(out: Path, records: Sequence[Record], evaluation: Evaluation) -> None:
    """Write an evaluation to its folder, and its figures to standard output."""
    config = evaluation.config
    write(out, records, config)
    write_metrics(out / "metrics.json", records, evaluation)
    found = estimates(records, evaluation.tasks)
    abstained = sum(is_unjudged(record) for record in records)
    sys.stdout.write(told(found, evaluation, len(records), abstained))
    sys.stdout.write("\n".join(["", *cost_table(costs(records)), ""]))
    for name in config.names:
        sys.stdout.write("\n".join(["", *table(evaluation.grouped(records, name)), ""]))
    sys.stdout.write(f"The episodes are {out / 'traces.jsonl'}\n")


if __name__ == "__main__":
    main()
