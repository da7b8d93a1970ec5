"""Where a run's curves and conversations go: CSV files always, beside them TensorBoard or W&B.

The loggers are TorchRL's. CSV files are what `videogym report` draws and what a resumed run corrects;
TensorBoard and W&B show points twice that were done twice.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torchrl.record import CSVLogger, TensorboardLogger, WandbLogger

from videogym.extras import require

log = logging.getLogger(__name__)
LoggerKind = Literal["csv", "tensorboard", "wandb"]
PROJECT = "videogym"  # of W&B, unless WANDB_PROJECT names another
REACH_S = 30.0  # that W&B is waited for
TAG = "conversations"


@dataclass(frozen=True, slots=True)
class Shown:
    """A conversation for people to read."""

    task_id: str
    text: str  # Markdown
    frames: NDArray[np.uint8] | None  # (H, W, 3) uint8, small pictures of what was shown; None: of nothing
    reward: float
    success: bool | None


def require_logger(kind: LoggerKind) -> None:
    """Refuse a logger whose library is not there.

    Raises:
        ImportError: W&B is not installed.
    """
    if kind == "wandb":
        require("wandb", "logger='wandb'")


class RunLogger:
    """The loggers of one run.

    Args:
        kind: which one beside the CSV files.
        out: folder of the run: curves are in its ``log``, what W&B keeps is in its ``wandb``.
        name: of the run, for W&B.
        options: of the run by name, for W&B.
        resumed: whether the folder's run goes on.

    Raises:
        ImportError: as `require_logger`.
    """

    def __init__(
        self, kind: LoggerKind, out: Path, name: str, options: Mapping[str, str], resumed: bool
    ) -> None:
        require_logger(kind)
        self._csv = CSVLogger("log", str(out))
        self._tensorboard = TensorboardLogger("log", str(out)) if kind == "tensorboard" else None
        self._wandb = None
        if kind == "wandb":
            self._wandb = _wandb_logger(out, name, resumed)
            self._wandb.log_hparams(dict(options))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point to every named curve."""
        for name, value in values.items():
            self._csv.log_scalar(name, float(value), step=step)
            if self._tensorboard is not None:
                self._tensorboard.log_scalar(name, float(value), step=step)
        if self._wandb is not None:
            self._wandb.log_metrics({name: float(value) for name, value in values.items()}, step=step)

    def conversations(self, step: int, shown: Sequence[Shown]) -> None:
        """Show conversations where there is more than files."""
        if self._tensorboard is not None:
            board = self._tensorboard.experiment
            for number, one in enumerate(shown):
                board.add_text(f"{TAG}/{number}", one.text, step)
                if one.frames is not None:
                    board.add_image(f"{TAG}/{number}", one.frames, step, dataformats="HWC")
            board.flush()
        if self._wandb is not None:
            import wandb

            columns = ["iteration", "task", "success", "reward", "conversation"]
            rows = [[step, one.task_id, one.success, one.reward, one.text] for one in shown]
            # Not in the table, whose pictures would lie outside of the run's folder until they are sent.
            frames = [
                wandb.Image(one.frames, caption=one.task_id) for one in shown if one.frames is not None
            ]
            told = {TAG: wandb.Table(columns, rows)} | ({f"{TAG}_frames": frames} if frames else {})
            self._wandb.log_metrics(told, step=step)

    def close(self) -> None:
        """End W&B's part, which sends what it still has; all else is written already."""
        if self._wandb is not None:
            self._wandb.experiment.finish()


def _wandb_logger(out: Path, name: str, resumed: bool) -> WandbLogger:
    """W&B's logger, offline where W&B is out of reach, which is said here and once."""
    import wandb

    options: dict[str, Any] = {
        "exp_name": name,
        "save_dir": str(out),
        "id": _wandb_id(out / "wandb" / "id", resumed),
        "project": os.environ.get("WANDB_PROJECT", PROJECT),
        # A progress bar writes to the terminal ten times a second, which nobody wants to keep.
        "settings": wandb.Settings(console="off", init_timeout=REACH_S),
    }
    options["mode"] = os.environ.get("WANDB_MODE", "online")
    if options["mode"] == "online":
        try:
            return WandbLogger(**options)
        except wandb.Error as error:  # no network, no account, no such project
            reason = " ".join(str(error).split())
            log.warning(
                "W&B is out of reach (%s): curves are kept in %s, and `wandb sync` sends them later",
                *(reason, out / "wandb"),
            )
            wandb.teardown()  # which still holds the run's name
            options["mode"] = "offline"
    return WandbLogger(**options)


def _wandb_id(path: Path, resumed: bool) -> str:
    """The name by which W&B knows a run: the one it had where it goes on, else a new one."""
    if resumed and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    made = secrets.token_hex(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{made}\n", encoding="utf-8")
    return made
