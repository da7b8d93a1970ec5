"""Training records as the traces that `videogym report` shows.

A record keeps what a policy wrote and was paid, not what was asked and shown. All that follows again from
its texts, see `videogym.traces.replay`. ``videogym report`` reads the folder of a run by itself; this is
for traces to keep, to compare and to demonstrate from.

Run ``python -m agents.tools.traces runs/grpo/records --tasks SOURCE --out grpo.jsonl``, where SOURCE is
what the run was trained on, then ``videogym report grpo.jsonl``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from videogym import Recipe, VideoQAEnv, get_recipe
from videogym.grammars import Prompt, load_prompt
from videogym.judging import Judge, with_judge
from videogym.mistakes import told_in_a_line
from videogym.traces import Trace, to_line
from videogym.traces.replay import ReplayError, replayed

from ..training.staging import whole_file
from ..vlm.records import Record, RecordError, read_records


def trace_of_record(record: Record, env: VideoQAEnv, run: str) -> Trace:
    """The trace of an episode, by playing it again.

    Args:
        record: of an episode that has ended or was cut.
        env: has the record's recipe and task.
        run: name of the run.

    Raises:
        RecordError: the episode is of another recipe, or does not play as it did.
        ValueError: the environment has no such task.
        VideoError: the task's video cannot be used.
    """
    try:
        return replace(replayed(record, env, run), cost=record.cost)
    except ReplayError as error:
        raise RecordError(str(error)) from error


def traces_of(
    records: Iterable[Record],
    tasks: str,
    run: str,
    video_root: str | None = None,
    prompt: Prompt | None = None,
    judge: Judge | None = None,
) -> Iterator[Trace]:
    """The traces of records; the recipe is that of the first, one of the named ones, with prompt and judge.

    Raises:
        RecordError: as in `trace_of_record`, or the recipe is none of the named ones.
    """
    env: VideoQAEnv | None = None
    for record in records:
        if env is None:
            recipe = _recipe(record.recipe).with_prompt(prompt)
            recipe = recipe if judge is None else with_judge(recipe, judge)
            env = VideoQAEnv(tasks, recipe, video_root=video_root)
        yield trace_of_record(record, env, run)


def _recipe(identity: str) -> Recipe:
    name = identity.partition("@")[0]
    try:
        return get_recipe(name)
    except ValueError as error:
        raise RecordError(f"records of a recipe of your own need trace_of_record: {error}") from error


def write_traces(path: Path, traces: Iterable[Trace]) -> None:
    """Write a file of traces; it appears when it is whole, in place of one that was there.

    Raises:
        Exception: what making the traces raises, or an `OSError`; then nothing is left.
    """
    with whole_file(path) as file:
        file.writelines(to_line(trace) for trace in traces)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path, help="file or folder of records")
    parser.add_argument("--tasks", required=True, help="source of the tasks that were played")
    parser.add_argument("--video-root", help="folder below which relative video paths lie (default: none)")
    parser.add_argument(
        "--prompt-file", help="prompt file with the words of the conversations (default: the grammar's own)"
    )
    parser.add_argument("--run", help="name of the run (default: that of the records' file or folder)")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file of traces, made or replaced")
    arguments = parser.parse_args()
    run = arguments.run or arguments.records.resolve().stem
    with told_in_a_line(parser.prog):
        prompt = load_prompt(arguments.prompt_file) if arguments.prompt_file else None
        records = tqdm(read_records(arguments.records), "episodes")
        traces = traces_of(records, arguments.tasks, run, arguments.video_root, prompt)
        write_traces(arguments.out, traces)


if __name__ == "__main__":
    main()
