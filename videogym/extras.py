"""Packages that extras bring: where one is not installed, the extra is named, in a program by one line.

Programs under ``python -m`` import what they need before any code of theirs could catch an error, so a
package that is missing would end them by a traceback. See `end_by_a_line`.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from types import TracebackType

# By the name under which a package is imported.
EXTRA_OF = {
    "torch": "agents",
    "torchrl": "agents",
    "tensordict": "agents",
    "transformers": "agents",
    "tokenizers": "agents",
    "huggingface_hub": "agents",
    "peft": "agents",
    "jinja2": "agents",
    "yaml": "agents",
    "safetensors": "agents",
    "tqdm": "agents",
    "matplotlib": "agents",
    "ray": "ray",
    "wandb": "wandb",
}
_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


class MissingExtra(ImportError):
    """A package that an extra brings is not installed; the message says how to get it."""


def require(package: str, what: str) -> None:
    """Refuse what needs a package that is not installed, before anything is made.

    Args:
        package: a name of `EXTRA_OF`.
        what: needs it, as the message says.

    Raises:
        MissingExtra: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"{what} needs {package}: {_how_to_get(package)}")


def end_by_a_line(module: str) -> None:
    """Where a program begins with this module, let a missing package end it by one line and status 1.

    A program is a module that Python runs, or lies in a package in which Python looks for it: until it is
    found, ``sys.argv[0]`` is ``-m``. Elsewhere nothing is changed.

    Args:
        module: ``__name__`` of the module that calls this.
    """
    if module == "__main__" or sys.argv[:1] == ["-m"]:
        sys.excepthook = functools.partial(_told, sys.excepthook)


def _told(
    usual: _Hook, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Write a line about a missing package of an extra; leave every other error to the usual hook."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, MissingExtra):
        sys.stderr.write(f"error: {error}\n")
    elif isinstance(error, ModuleNotFoundError) and name in EXTRA_OF:
        sys.stderr.write(f"error: {name} is not installed: {_how_to_get(name)}\n")
    else:
        usual(kind, error, trace)


def _how_to_get(package: str) -> str:
    extra = EXTRA_OF[package]
    first = "pip install torch==2.13.0, then " if package == "torch" else ""
    return f"{first}pip install 'videogym[{extra}]'"
