"""``videogym data``: from videos of one's own to questions and traces, step by step."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, get_args

from videogym.cli.options import add_command
from videogym.cli.places import find_places
from videogym.cli.terminal import progress_bar
from videogym.data import (
    Asker,
    ExportFormat,
    FilterOptions,
    SceneOptions,
    StepPrompt,
    Summary,
    TraceOptions,
    WorkFolder,
    caption_scenes,
    export,
    filter_questions,
    find_scenes,
    make_questions,
    play_traces,
    step_prompt,
)
from videogym.data.filtering import SkimAnswers
from videogym.data.prompts import PROMPT_PLACES
from videogym.data.scenes import CutDetector
from videogym.data.work import Progress
from videogym.judging import ChatEndpoint
from videogym.mistakes import printable
from videogym.video.addresses import is_address

_TOLD = 20  # of what was dropped in a run, and of what is left
_EPILOG = """\
  videogym data scenes videos/ --work work/
  videogym data caption --work work/ --endpoint http://127.0.0.1:8000/v1 --model NAME
  videogym data questions --work work/ --endpoint http://127.0.0.1:8000/v1 --model NAME
  videogym data filter --work work/ --endpoint http://127.0.0.1:8000/v1 --model NAME
  videogym data traces --work work/ --endpoint http://127.0.0.1:8000/v1 --model NAME
  videogym data export --work work/ --format tasks --out tasks.jsonl
  videogym data export --work work/ --format longvt-sft --out sft.parquet

A step that is killed goes on where it stopped when it is run again, and no reply is paid for twice. What is
dropped stays in the file of its step with the reason.

Exit status: 0 done, 1 something is left for another run, 2 the command was not understood or the
endpoint cannot be used."""


def add_data(commands: Any) -> None:
    """``videogym data``."""
    parser = add_command(
        commands,
        "data",
        help="make training questions and traces from your own videos",
        description="The steps from a folder of videos to questions and traces for training. Each writes "
        "one file of JSON lines in the folder of work.",
        epilog=_EPILOG,
    )
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    _add_scenes(steps)
    _add_caption(steps)
    _add_questions(steps)
    _add_filter(steps)
    _add_traces(steps)
    _add_export(steps)
    _add_prompt(steps)


# --- the steps -----------------------------------------------------------------------------------


def _add_scenes(steps: Any) -> None:
    about = SceneOptions()
    parser = _add_step(steps, "scenes", "divide videos into scenes", _scenes)
    parser.add_argument("videos", metavar="DIR", help="folder with the videos, and all below it")
    parser.add_argument(
        "--cuts",
        choices=get_args(CutDetector),
        default=about.cuts,
        help="where scenes end: content, found by PySceneDetect; none, for footage of one take "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=about.threshold,
        help="difference of two frames that is a cut (default: %(default)g)",
    )
    parser.add_argument(
        "--min-scene-s",
        type=float,
        default=about.min_scene_s,
        metavar="SECONDS",
        help="shorter scenes are joined with their neighbours (default: %(default)g)",
    )
    parser.add_argument(
        "--max-scene-s",
        type=float,
        default=about.max_scene_s,
        metavar="SECONDS",
        help="longer scenes are divided (default: %(default)g)",
    )


def _scenes(arguments: argparse.Namespace, work: WorkFolder) -> Summary:
    root = arguments.videos
    if not os.path.isdir(root):
        raise ValueError(f"a folder of videos is needed, got {root!r}")
    places, wrong = find_places([root])
    for examination, _ in wrong:
        told = "; ".join(found.message for found in examination.findings)
        print(f"passed over: {printable(examination.path)}: {printable(told)}", file=sys.stderr)
    videos = [os.path.relpath(place.path, root) for place in places if not is_address(place.path)]
    options = SceneOptions(
        arguments.cuts, arguments.threshold, arguments.min_scene_s, arguments.max_scene_s
    )
    return find_scenes(work, videos, root, options, jobs=arguments.jobs, progress=progress_bar("videos"))


def _add_caption(steps: Any) -> None:
    parser = _add_step(steps, "caption", "have every scene described", _caption)
    _add_endpoint(parser, "caption")
    parser.add_argument(
        "--fps", type=float, default=1.0, help="frames a second that are shown (default: %(default)g)"
    )
    parser.add_argument(
        "--frames", type=int, default=16, metavar="N", help="at most so many (default: %(default)s)"
    )


def _caption(arguments: argparse.Namespace, work: WorkFolder) -> Summary:
    if not arguments.fps > 0 or arguments.frames < 1:
        raise ValueError(
            f"--fps must be above 0 and --frames at least 1, got {arguments.fps} and {arguments.frames}"
        )
    prompt = _prompts(arguments).get("caption")
    step = partial(caption_scenes, prompt=prompt, fps=arguments.fps, max_frames=arguments.frames)
    return _asked(work, arguments, step, "scenes")


def _add_questions(steps: Any) -> None:
    parser = _add_step(steps, "questions", "have questions made of the captions", _questions)
    _add_endpoint(parser, "questions")
    parser.add_argument(
        "--scenes", type=int, default=15, metavar="N", help="scenes of one request (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=5, metavar="N", help="questions of one request (default: %(default)s)"
    )


def _questions(arguments: argparse.Namespace, work: WorkFolder) -> Summary:
    if arguments.scenes < 1 or arguments.count < 1:
        raise ValueError(
            f"--scenes and --count must be at least 1, got {arguments.scenes} and {arguments.count}"
        )
    prompt = _prompts(arguments).get("questions")
    step = partial(make_questions, prompt=prompt, scenes=arguments.scenes, count=arguments.count)
    return _asked(work, arguments, step, "requests")


def _add_filter(steps: Any) -> None:
    about = FilterOptions()
    parser = _add_step(steps, "filter", "decide which questions are fit to train on", _filter)
    _add_endpoint(parser, "blind", "skim", "verify", "judge")
    parser.add_argument(
        "--threshold",
        type=float,
        default=about.threshold,
        help="least score, from 0 to 1, of a model that sees the evidence (default: %(default)g)",
    )
    parser.add_argument(
        "--skim",
        choices=get_args(SkimAnswers),
        default=about.skim,
        help="questions that the first frames of an episode answer: drop them, mark them as skim_suffices, "
        "or keep them without asking (default: %(default)s)",
    )
    parser.add_argument(
        "--recipe", default=about.recipe, metavar="NAME", help="whose first frames (default: %(default)s)"
    )
    parser.add_argument(
        "--max-share",
        type=float,
        default=about.max_share,
        help="longest evidence, as a share of its video (default: %(default)g)",
    )


def _filter(arguments: argparse.Namespace, work: WorkFolder) -> Summary:
    options = FilterOptions(arguments.threshold, arguments.skim, arguments.recipe, arguments.max_share)
    step = partial(filter_questions, options=options, prompts=_prompts(arguments))
    return _asked(work, arguments, step, "questions")


def _add_traces(steps: Any) -> None:
    about = TraceOptions()
    parser = _add_step(steps, "traces", "have a teacher play the questions in the environment", _traces)
    _add_endpoint(parser, "teach", "hint", "judge")
    parser.add_argument(
        "--recipe", default=about.recipe, metavar="NAME", help="of the episodes (default: %(default)s)"
    )
    parser.add_argument(
        "--min-iou",
        type=float,
        default=about.min_iou,
        help="least IoU of the last look with the evidence (default: %(default)g)",
    )
    parser.add_argument(
        "--no-hint", action="store_true", help="tell the teacher nothing after a look that missed"
    )


def _traces(arguments: argparse.Namespace, work: WorkFolder) -> Summary:
    options = TraceOptions(arguments.recipe, arguments.min_iou, not arguments.no_hint)
    step = partial(play_traces, options=options, prompts=_prompts(arguments))
    return _asked(work, arguments, step, "episodes")


def _add_export(steps: Any) -> None:
    parser = steps.add_parser(
        "export", help="write what was kept for trainers", description="Write what was kept for trainers."
    )
    parser.add_argument("--work", required=True, metavar="DIR", help="folder of work")
    parser.add_argument(
        "--format",
        required=True,
        choices=get_args(ExportFormat),
        help="tasks: a task file; longvt-rl, longvt-sft: LongVT's rows; traces: episodes",
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="made or replaced; parquet where it is called .parquet"
    )
    parser.add_argument(
        "--accepted",
        metavar="FILE",
        help="only what was accepted in `videogym play --review FILE` (default: all that was kept)",
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    with WorkFolder(arguments.work, make=False) as work:
        count = export(work, arguments.format, arguments.out, arguments.accepted)
    print(f"{count} are in {printable(arguments.out)}")
    return 0


def _add_prompt(steps: Any) -> None:
    parser = steps.add_parser(
        "prompt", help="print a prompt of ours, to be changed", description="Print a prompt of ours."
    )
    parser.add_argument("name", choices=list(PROMPT_PLACES), help="which one")
    parser.set_defaults(run=_prompt)


def _prompt(arguments: argparse.Namespace) -> int:
    print(step_prompt(arguments.name).text, end="")
    return 0


# --- what they share -----------------------------------------------------------------------------


def _add_step(
    steps: Any, name: str, about: str, run: Callable[[argparse.Namespace, WorkFolder], Summary]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = steps.add_parser(
        name, help=about, description=f"{about.capitalize()}."
    )
    made = ", made when missing" if name == "scenes" else ""
    parser.add_argument("--work", required=True, metavar="DIR", help=f"folder of work{made}")
    parser.add_argument(
        "--jobs", type=int, default=4, metavar="N", help="how much is done at once (default: %(default)s)"
    )
    parser.set_defaults(run=lambda arguments: _run(arguments, run))
    return parser


def _add_endpoint(parser: argparse.ArgumentParser, *prompts: str) -> None:
    parser.add_argument(
        "--endpoint", required=True, metavar="URL", help="chat completions of OpenAI's shape, up to /v1"
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="by which the endpoint knows the model"
    )
    parser.add_argument(
        "--deadline-s",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="leave a request for another run after so long, waits included (default: %(default)g)",
    )
    parser.add_argument(
        "--max-tokens", type=int, default=2048, metavar="N", help="of a reply (default: %(default)s)"
    )
    parser.add_argument(
        "--give-up-after",
        type=int,
        default=20,
        metavar="N",
        help="stop after so many requests in a row without a reply (default: %(default)s)",
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help=f"words of your own for the prompt {' or '.join(prompts)}; may be repeated (default: ours)",
    )
    parser.set_defaults(prompts=prompts)


def _prompts(arguments: argparse.Namespace) -> dict[str, StepPrompt]:
    prompts = {}
    for text in arguments.prompt:
        name, _, path = text.partition("=")
        if name not in arguments.prompts or not path:
            raise ValueError(
                f"--prompt must be NAME=FILE with one of {', '.join(arguments.prompts)}, got {text!r}"
            )
        prompts[name] = step_prompt(name, path)
    return prompts


class _Step(Protocol):
    """A step of the pipeline that asks a model."""

    def __call__(
        self, work: WorkFolder, asker: Asker, *, jobs: int, progress: Progress | None
    ) -> Summary: ...


def _asked(work: WorkFolder, arguments: argparse.Namespace, step: _Step, unit: str) -> Summary:
    if arguments.max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1, got {arguments.max_tokens}")
    endpoint = ChatEndpoint(
        arguments.endpoint, deadline_s=arguments.deadline_s, give_up_after=arguments.give_up_after
    )
    asker = Asker(endpoint, arguments.model, work.file("replies"), arguments.max_tokens)
    try:
        return step(work, asker, jobs=arguments.jobs, progress=progress_bar(unit))
    except BaseException:  # what was paid is told however the step ends
        print(f"{asker.cost} before it ended", file=sys.stderr)
        raise


def _run(arguments: argparse.Namespace, run: Callable[[argparse.Namespace, WorkFolder], Summary]) -> int:
    with WorkFolder(arguments.work, make=arguments.step == "scenes") as work:
        summary = run(arguments, work)
    for line in _some(summary.reasons):
        print(f"dropped: {printable(line)}")
    for line in _some(summary.left):
        print(f"left: {printable(line)}")
    drops = ", ".join(f"{code} {count}" for code, count in sorted(summary.dropped.items()))
    print(
        f"{arguments.step}: {summary.kept} kept, {summary.dropped.total()} dropped"
        + (f" ({drops})" if drops else "")
    )
    if hasattr(arguments, "endpoint"):
        print(f"{summary.cost}")
    if summary.left:
        print(f"{len(summary.left)} are left: run this again")
    return int(bool(summary.left))


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _TOLD
    return lines if more <= 0 else [*lines[:_TOLD], f"and {more} more"]
