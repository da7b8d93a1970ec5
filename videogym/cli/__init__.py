"""The command ``videogym``."""

from videogym.cli.command import COMMANDS, main
from videogym.cli.terminal import progress_bar

__all__ = ["COMMANDS", "main", "progress_bar"]
