"""``videogym eval``: a policy over tasks, with metrics and their intervals."""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, get_args

import gymnasium

from videogym.cli.options import add_command, add_episodes, add_groups, add_judge, judged, read_recipe
from videogym.cli.terminal import progress_bar
from videogym.env import VideoQAEnv
from videogym.evaluate import Policy, Report, evaluate
from videogym.mistakes import printable
from videogym.results import describe_run, result_text
from videogym.testing.policies import Blind, Oracle, Random, SkimOnly
from videogym.traces import RecordTraces
from videogym.video import Backend, VideoError
from videogym.wrappers import TextActions

POLICIES: dict[str, Callable[[int], Policy]] = {
    "blind": Blind,
    "oracle": lambda seed: Oracle(),
    "random": Random,
    "skim_only": SkimOnly,
}
_SETTINGS = ("policy", "seed", "tasks", "episodes", "backend", "trained_on")  # that a result tells
_NAMED = 5  # bad videos that are named


def add_eval(commands: Any) -> None:
    """``videogym eval``."""
    parser = add_command(
        commands,
        "eval",
        help="evaluate a policy on tasks",
        description="Play tasks with a policy and report accuracy, hit rate, temporal IoU, turns, frames, "
        "refused turns and reward terms, each with its 95 % interval. Tasks whose video cannot be used "
        "are listed and left out.",
        epilog="POLICY is one of these bounds, or MODULE:NAME of your own:\n\n"
        "  blind      answers at random at once\n"
        "  skim_only  right where the skim happens to show the evidence, else at random\n"
        "  random     looks and answers at random\n"
        "  oracle     knows evidence and answer\n"
        "  mine:act   act(observation, info) or act(observation, info, env) in mine.py, here or\n"
        "             installed; a class is made without arguments\n\n"
        "  videogym eval oracle\n"
        "  videogym eval mine:act --tasks tasks.jsonl --video-root videos/ --traces mine.jsonl\n"
        "  videogym eval mine:speak --recipe LONGVT/paper --text       speak returns text in its grammar\n"
        "  videogym eval mine:act --tasks test.jsonl --trained-on train.jsonl",
    )
    parser.add_argument("policy", metavar="POLICY", help="name of a policy, see below")
    add_episodes(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the policy (default: %(default)s)")
    parser.add_argument(
        "--episodes", type=int, metavar="N", help="play only the first N tasks (default: all)"
    )
    parser.add_argument(
        "--text", action="store_true", help="the policy writes text in the recipe's grammar"
    )
    parser.add_argument(
        "--trained-on",
        metavar="TASKS",
        help="source of training tasks: refuse to evaluate on their videos (default: not checked)",
    )
    parser.add_argument(
        "--backend",
        choices=get_args(Backend),
        default="pyav",
        help="video decoder (default: %(default)s)",
    )
    add_judge(parser)
    add_groups(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print settings, metrics and episodes as one JSON object, which `videogym diff` reads",
    )
    parser.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    if arguments.episodes is not None and arguments.episodes < 1:
        raise ValueError(f"--episodes must be at least 1, got {arguments.episodes}")
    if arguments.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {arguments.seed}")
    policy = load_policy(arguments.policy, arguments.seed)
    inner = VideoQAEnv(
        arguments.tasks,
        judged(read_recipe(arguments), arguments),
        video_root=arguments.video_root,
        backend=arguments.backend,
    )
    env: gymnasium.Env[Any, Any] = TextActions(inner) if arguments.text else inner
    if arguments.traces is not None:
        env = RecordTraces(env, arguments.traces)
    try:
        report = evaluate(
            policy,
            env,
            episodes=arguments.episodes,
            seed=arguments.seed,
            trained_on=arguments.trained_on,
            progress=progress_bar("episodes"),
            by=arguments.by,
        )
    finally:
        env.close()
    told = {name: getattr(arguments, name) for name in _SETTINGS}
    text = result_text(report, describe_run(env, **told)) if arguments.json else "\n".join(_lines(report))
    print(text)
    return 0


def load_policy(name: str, seed: int) -> Policy:
    """The policy of a name.

    Args:
        name: of `POLICIES`, or ``module:name``, which is imported from the current folder or wherever
            Python finds it; a class is made without arguments.
        seed: of a named policy.

    Raises:
        ValueError: there is none.
        ImportError: the module cannot be imported.
    """
    if name in POLICIES:
        return POLICIES[name](seed)
    module, colon, attribute = name.partition(":")
    if not colon or not module or module.startswith("."):
        raise ValueError(f"a policy is one of {', '.join(POLICIES)}, or MODULE:NAME; got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = importlib.import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {attribute!r}")
        found = getattr(found, part)
    policy: Any = found() if inspect.isclass(found) else found
    if not callable(policy):
        raise ValueError(f"{name} is no policy: it cannot be called")
    return _blamed(policy)


def _blamed(policy: Policy) -> Policy:
    """The same policy; an error in it is seen with its traceback, not taken for one of the command."""

    @functools.wraps(policy)
    def act(*observed: Any) -> Any:
        try:
            return policy(*observed)
        except VideoError:
            raise
        except Exception as error:  # a user's policy may raise anything
            raise RuntimeError(f"the policy raised {type(error).__name__}") from error

    return act


def _lines(report: Report) -> list[str]:
    lines = str(report).splitlines()
    if report.bad_videos:
        lines += [f"  {printable(cause)}" for cause in list(report.bad_videos.values())[:_NAMED]]
        lines.append("  `videogym doctor` says how to mend them")
    return lines
