"""The command of a training loop of a language model: from one checkpoint to another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from videogym import FrameStore
from videogym.judging import EndpointError

from ..engines.base import EngineError
from ..models.qwen_vl import QwenVL
from ..training.command import interruptible, one_line, require_folder, saved_so_far
from ..training.config_file import parse_with_config
from ..training.options import add_options, options_of, quiet_libraries, read_config
from ..training.provenance import digest_of_weights, files_of
from ..training.ranks import (
    RanksDisagree,
    broadcast_from_rank0,
    destroy_process_group,
    exit_together,
    init_distributed,
    is_first,
    reported,
    require_alike,
    together,
)
from ..training.run import TrainingRun
from .actor import ChatActor
from .config import ChatConfig, M, tell_prompt
from .critic import CriticError
from .hub import PushError, push_to_hub, require_pushable
from .policy import make_actor, make_model, require_device
from .records import RecordError
from .tiny import tiny_checkpoint


def training_parser(
    about: str | None, config_class: type[ChatConfig], out: Path
) -> argparse.ArgumentParser:
    """What the command of a training loop reads; a server can sample for loops that play."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=out, help="folder; resumed if it holds a run (default: %(default)s)"
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="NAME",
        default="",
        help="repository on the Hugging Face hub that the trained checkpoint is pushed to; private where "
        "it is made (default: none)",
    )
    if "collector" in {option.name for option in options_of(config_class)}:
        about_server = (
            "vLLM server that samples, see agents.engines.vllm_server, or several with commas between "
            "(default: the model samples)"
        )
        parser.add_argument("--server", metavar="URL", default="", help=about_server)
    add_options(parser, config_class)
    return parser


def require_one_run(config: ChatConfig, server: str, model: QwenVL) -> None:
    """Refuse ranks that would not do the same; all ask.

    Raises:
        RanksDisagree: they were given different options, or have loaded different weights.
    """
    told = {option.name: str(option.of(config)) for option in options_of(type(config))}
    require_alike(told | {"server": server, "weights": digest_of_weights(model)})


@reported
def command_line(
    about: str | None,
    config_class: type[M],
    train: Callable[[M, ChatActor, Path, bool], TrainingRun],
    out: Path,
) -> None:
    """The command of a training loop: from one checkpoint to another.

    Args:
        about: what ``--help`` says.
        config_class: every field of it is an option.
        train: called with config, actor, folder and whether to show progress.
        out: the folder by default; the trained checkpoint is its ``model``.
    """
    parser = training_parser(about, config_class, out)
    arguments = parse_with_config(parser)
    config = read_config(parser, config_class, vars(arguments))
    server: str = getattr(arguments, "server", "")
    if server and getattr(config, "collector", "local") == "ray":
        parser.error("--server is for --collector local and async: Ray's workers would all send weights")
    if arguments.push_to_hub:
        try:
            require_pushable(arguments.push_to_hub)
        except ValueError as error:
            parser.error(f"--push-to-hub: {error}")
    quiet_libraries()
    with interruptible(lambda: saved_so_far(arguments.out)), one_line(parser, CriticError, RecordError):
        require_folder(arguments.out)
        _run(parser, arguments, config, train)


def _run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    config: M,
    train: Callable[[M, ChatActor, Path, bool], TrainingRun],
) -> None:
    server: str = getattr(arguments, "server", "")
    try:
        require_device(config.model.device)
    except ValueError as error:
        parser.error(f"--device: {error}")
    if is_first():
        tell_prompt(config)
    torch.set_num_threads(config.runtime.threads)
    torch.manual_seed(config.seed)
    init_distributed(config.model.device)
    if not config.model.checkpoint:
        arguments.out.mkdir(parents=True, exist_ok=True)
        made = broadcast_from_rank0(lambda: str(tiny_checkpoint(arguments.out / "tiny", config)))
        config = config.with_options(checkpoint=made)
    made_models: list[QwenVL] = []
    try:
        store = FrameStore(video_root=config.root, open_videos=64)
        together(lambda: made_models.append(make_model(config, store)), (OSError, ValueError))
    except (OSError, ValueError) as error:  # on all ranks, as what follows
        why = " ".join(str(error).split())  # transformers says it in several lines
        told = f"--checkpoint {config.model.checkpoint} is no model that can be loaded: {why}"
        exit_together(2, f"{parser.prog}: error: {told}")
    (model,) = made_models
    try:
        require_one_run(config, server, model)
    except RanksDisagree as error:
        exit_together(2, f"{parser.prog}: error: {error}")
    try:
        actor = make_actor(config, model, server)
    except (EngineError, ValueError) as error:
        exit_together(2, f"{parser.prog}: error: --server: {error}")
    try:
        run = train(config, actor, arguments.out, is_first())
        run.evaluated = run.evaluated or run.evaluate()
        values = run.evaluated
    except RanksDisagree as error:
        exit_together(2, f"{parser.prog}: error: {error}")
    except (EngineError, EndpointError) as error:
        if isinstance(error, EngineError) and not server:
            raise
        said = f"{error}\n{saved_so_far(arguments.out)}"
        if isinstance(error, EngineError):  # on all ranks
            exit_together(1, said)
        sys.exit(said)
    finally:
        actor.engine.close()
    iterations = max(run.first_iteration, config.iterations)  # it had done more than are asked for now
    actor.model.save(str(arguments.out / "model"), files_of(run.provenance(iterations)))
    if is_first():
        told = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        sys.stdout.write(f"{told}\nThe checkpoint is {arguments.out / 'model'}\n")
    destroy_process_group()
    if is_first() and arguments.push_to_hub:
        done = f"{parser.prog.removesuffix('.py')}, {iterations} iterations"
        try:
            where = push_to_hub(arguments.out / "model", arguments.push_to_hub, done)
        except PushError as error:
            sys.exit(str(error))
        sys.stdout.write(f"It is at {where}\n")
