"""What a checkpoint knows of its training: recipe, prompt, every option, and how good it last was.

It stands in the archive of a run and, as a file, beside the weights of a language model. It is plain data:
whoever reads it gets a config back, and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videogym import Prompt, Recipe, __version__, get_recipe

from .archive import UnreadableCheckpoint, read_metadata
from .options import LoopConfig, options_of

TRAINED_FILE = "videogym.json"  # beside the weights of a language model
KEY = "trained"  # of an archive's metadata
_VERSION = 1
_MOST_BYTES = 4_000_000
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a weight
_AT_ONCE = 1 << 24  # weights that are summed at once, which takes memory


# What an evaluation has from the run that made the checkpoint, unless it is named.
CARRIED = (
    *("video_root", "threads", "device", "dtype", "video_form", "window"),
    *("max_new_tokens", "max_context", "max_concurrent_rollouts"),
    *("judge", "judge_model", "judge_cache", "judge_deadline_s"),
)


def provenance(
    config: LoopConfig, algorithm: str, iteration: int, evaluated: Mapping[str, float], policy: Any = None
) -> dict[str, Any]:
    """All of it, in JSON values.

    Args:
        config: of the run.
        algorithm: name of its module.
        iteration: how many were done.
        evaluated: the figures of the last evaluation, by the names of their curves.
        policy: has ``described()`` where it can be made again from that.
    """
    recipe, options = config.rules, {one.name: one.of(config) for one in options_of(type(config))}
    options["recipe"] = recipe.name
    return {
        "version": _VERSION,
        "videogym": __version__,
        "algorithm": algorithm,
        "iteration": iteration,
        "recipe": {"name": recipe.name, "identity": recipe.identity},
        "pixels": {"min": recipe.rules.min_pixels, "max": recipe.rules.max_pixels},
        "prompt": recipe.prompt.texts if recipe.prompt else None,
        "config": {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()},
        "evaluated": {name: float(value) for name, value in evaluated.items()},
        "policy": policy.described() if hasattr(policy, "described") else None,
    }


def digest_of_weights(model: nn.Module) -> str:
    """Twelve hexadecimal digits that change with the weights, on whatever device they are.

    Low-rank adapters do not count: they begin at nothing, and at random. No rank may have shards yet.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if "lora_" in name:
            continue
        bits = weight.detach().flatten().view(_INTEGERS[weight.element_size()])
        # Of integers, so that no order of summing makes another number.
        total = sum(int(some.sum(dtype=torch.int64)) for some in bits.split(_AT_ONCE))
        digest.update(f"{tuple(weight.shape)} {bits[:64].tolist()} {total}".encode())
    return digest.hexdigest()[:12]


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of its training; None where it says nothing.

    Args:
        path: folder of a model or of a run, or the archive of a run.

    Raises:
        UnreadableCheckpoint: what it says cannot be read.
        OSError: likewise.
    """
    for file in (path / TRAINED_FILE, path / "model" / TRAINED_FILE):
        if file.is_file():
            return _checked(file, _json(file))
    archive = path if path.is_file() else path / "checkpoint"
    if not archive.is_file():
        return None
    found = read_metadata(archive).get(KEY)
    return None if found is None else _checked(archive, found)


def _json(file: Path) -> Any:
    with file.open("rb") as opened:
        raw = opened.read(_MOST_BYTES + 1)
    try:
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnreadableCheckpoint(f"{file} does not say what was trained: {error}") from error


def _checked(file: Path, found: Any) -> dict[str, Any]:
    kinds = {"algorithm": str, "iteration": int, "recipe": dict, "config": dict, "evaluated": dict}
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        version = found.get("version") if isinstance(found, dict) else None
        raise UnreadableCheckpoint(f"{file} is of version {version!r}, this code reads {_VERSION}")
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise UnreadableCheckpoint(
                f"{file} does not say what was trained: {name} is {found.get(name)!r:.80}"
            )
    return found


def recipe_of(found: Mapping[str, Any]) -> Recipe:
    """The recipe that something was trained under, but for a judge, which its options name.

    Raises:
        UnreadableCheckpoint: it was one of the user's own.
    """
    name, identity = found["recipe"].get("name"), found["recipe"].get("identity")
    try:
        recipe = get_recipe(str(name))
        return recipe.with_prompt(Prompt(**found["prompt"])) if found.get("prompt") else recipe
    except (ValueError, TypeError) as error:
        raise UnreadableCheckpoint(f"it was trained under the recipe {identity}: {error}") from error


def require_recipe(found: Mapping[str, Any], config: LoopConfig) -> None:
    """Refuse a config whose recipe is not what something was trained under.

    Raises:
        UnreadableCheckpoint: as a recipe of that name is another one in this version.
    """
    identity = found["recipe"].get("identity")
    if config.rules.identity != identity:
        raise UnreadableCheckpoint(
            f"it was trained under the recipe {identity}, which is {config.rules.identity} here: name one"
        )


def options_of_run(found: Mapping[str, Any]) -> dict[str, Any]:
    """The options that something was trained with, by name, but recipe and prompt, see `recipe_of`."""
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in found["config"].items()}
    return {name: value for name, value in values.items() if name not in ("recipe", "prompt_file")}


def model_card(found: Mapping[str, Any]) -> str:
    """A page about a language model, as model hubs show it."""
    config, recipe = found["config"], found["recipe"]
    base = config.get("checkpoint") or ""
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in found["evaluated"].items())
    options = "\n".join(f"{name}: {json.dumps(value)}" for name, value in config.items())
    # A name that a hub could know, not a folder of the machine it was trained on.
    front = f"base_model: {base}\n" if base.count("/") == 1 and not Path(base).exists() else ""
    return (
        "---\nlibrary_name: transformers\npipeline_tag: video-text-to-text\n"
        f"{front}tags: [videogym]\n---\n\n"
        f"# {recipe['identity']}\n\n"
        f"A policy that looks around in long videos, trained with videogym {found['videogym']} by "
        f"`agents.{found['algorithm']}`, {found['iteration']} iterations, under the recipe "
        f"`{recipe['identity']}`{', behind `prompt.toml`' if found.get('prompt') else ''}.\n\n"
        "What it was trained under is in `videogym.json`, so that nothing has to be repeated:\n\n"
        "```bash\npython -m agents.evaluate --checkpoint THIS_FOLDER\n```\n\n"
        f"| last evaluation, at most {config.get('eval_episodes')} held-out tasks | |\n"
        f"|---|---|\n{rows}\n\n"
        f"## Options\n\n```yaml\n{options}\n```\n"
    )


def files_of(found: Mapping[str, Any]) -> dict[str, str]:
    """What is written beside the weights of a language model, by name."""
    files = {TRAINED_FILE: json.dumps(found, indent=1), "README.md": model_card(found)}
    if found.get("prompt"):
        files["prompt.toml"] = Prompt(**found["prompt"]).file_text()
    return files
