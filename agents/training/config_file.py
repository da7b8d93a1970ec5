"""A config as a YAML file: what a command reads by ``--config``, and what a run keeps of its own.

A file has the names of the options, flat or below the names of their groups. It is read as text and by
the type of each option, so that ``1e-6`` is a number and ``no`` is not a task file; nothing of it is run.
What the command line says wins.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from .options import RENAMED, LoopConfig, options_of

MAX_BYTES = 1_000_000
_PLAIN = ("str", "int", "float", "bool", "null", "timestamp")  # tags of a scalar that nothing is made of
_LEFT_OUT = ("help", "config")
_TYPES = {int: "a whole number", float: "a number", bool: "true or false"}
_KINDS = {yaml.MappingNode: "several fields", yaml.SequenceNode: "a list"}


class ConfigError(ValueError):
    """A config file cannot be used; the message names file, line and field."""


def parse_with_config(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
    beneath: Callable[[argparse.Namespace], dict[str, Any]] | None = None,
) -> argparse.Namespace:
    """What a command reads: its defaults, over them the file of ``--config``, over both its options.

    Ends the program with one line and status 2 where the file cannot be used.

    Args:
        parser: of the command; ``--config`` is added.
        arguments: of the command; None: those of this process.
        beneath: of what was read, further options, which replace defaults and nothing else.
    """
    about = "YAML file with any of these options by name; those that are given here win (default: none)"
    parser.add_argument("--config", metavar="FILE", type=Path, help=about)
    first = argparse.ArgumentParser(add_help=False, prog=parser.prog)
    first.add_argument("--config", type=Path, help=about)
    path = first.parse_known_args(arguments)[0].config
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = read_config_file(path, parser)
        except (OSError, ConfigError) as error:
            parser.error(str(error))
        parser.set_defaults(**values)
        for action in _actions(parser).values():
            action.required = action.required and action.dest not in values
    if beneath is not None:
        try:
            parser.set_defaults(**{**beneath(parser.parse_args(arguments)), **values})
        except (OSError, ValueError) as error:
            parser.error(str(error))
    return parser.parse_args(arguments)


def read_config_file(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The options of a file, by name and in their types.

    Raises:
        ConfigError: it is no YAML or too large, or a field is unknown, named twice, without a value or
            of another type.
        OSError: it cannot be read.
    """
    known = _actions(parser)
    values: dict[str, Any] = {}
    for name, node in _fields(path, _root(path), {group.title or "" for group in parser._action_groups}):
        line = f"{path}, line {node.start_mark.line + 1}"
        name = name.replace("-", "_")
        name = name if name in known else RENAMED.get(name, name)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"{line}: unknown field {name!r}; {hint}")
        if name in values:
            raise ConfigError(f"{line}: {name} is given twice")
        values[name] = _value(f"{line}: {name}", node, known[name])
    return values


def blamed(error: Exception, file: Path | None) -> str:
    """What is wrong with a config, and the file that it came from."""
    return f"{file}: {error}" if file else str(error)


def config_text(config: LoopConfig) -> str:
    """A file that is read as this config; a recipe that has no name is its identity in a remark."""
    flat: dict[str, Any] = {}
    for option in options_of(type(config)):
        value = option.of(config)
        holder = flat if option.field == option.name else flat.setdefault(option.field, {})
        holder[option.name] = list(value) if isinstance(value, tuple) else value
    remarks = [f"# {config.rules.identity}"]
    if not isinstance(config.recipe, str):
        flat["recipe"] = config.recipe.name
        remarks.append("# The recipe was made in Python; a command takes the one of this name.")
    return "\n".join([*remarks, yaml.safe_dump(flat, sort_keys=False, allow_unicode=True, width=1_000)])


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    shown = (action for action in parser._actions if action.help is not argparse.SUPPRESS)
    return {action.dest: action for action in shown if action.dest not in _LEFT_OUT}


def _root(path: Path) -> yaml.MappingNode:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path} is no config: it has more than {MAX_BYTES:,} bytes")
    try:
        root = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: byte {error.start}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{place}: not YAML: {why}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not YAML that is a config: it is nested too deeply") from error
    if root is None:
        raise ConfigError(f"{path} is empty")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} holds no fields: write them as in seed: 3")
    return root


def _fields(path: Path, root: yaml.MappingNode, groups: set[str]) -> Iterator[tuple[str, yaml.Node]]:
    """Names and values, those below the name of a group among them."""
    for key, node in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{path}, line {key.start_mark.line + 1}: the name of a field is a text")
        if isinstance(node, yaml.MappingNode) and key.value in groups:
            yield from _fields(path, node, set())
        else:
            yield key.value, node


def _value(place: str, node: yaml.Node, action: argparse.Action) -> Any:
    if action.nargs == "+":
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items and action.default:  # else the list may be empty
            raise ConfigError(f"{place} has no value")
        return [_scalar(place, item, action) for item in items]
    return _scalar(place, node, action)


def _scalar(place: str, node: yaml.Node, action: argparse.Action) -> Any:
    kind: Any = bool if isinstance(action, argparse.BooleanOptionalAction) else action.type or str
    wanted = _TYPES.get(kind, "a text")
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{place} must be {wanted}, got {_KINDS.get(type(node), 'something else')}")
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN:
        raise ConfigError(f"{place} must be {wanted}, got the tag {node.tag}")
    text, quoted = node.value, node.style is not None
    if not quoted and node.tag == "tag:yaml.org,2002:null":
        raise ConfigError(f"{place} has no value")
    try:
        value = _read(text, kind, quoted)
    except ValueError:
        raise ConfigError(f"{place} must be {wanted}, got {text!r}") from None
    if action.choices is not None and value not in action.choices:
        raise ConfigError(f"{place} must be one of {', '.join(map(str, action.choices))}, got {text!r}")
    return value


def _read(text: str, kind: Any, quoted: bool) -> Any:
    if kind is bool:
        if quoted or text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if kind in (int, float) and quoted:
        raise ValueError(text)
    return kind(text)
