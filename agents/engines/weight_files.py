"""The file through which weights reach servers: whole while they read it, and gone afterwards.

It is in a folder that is locked while its process lives, so that the next one removes what a killed one
left.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ..training.staging import locked, remove, whole_folder

FOLDER = "videogym-weights-"  # and what `tempfile` adds
WEIGHTS_FILE = "weights.safetensors"


class WeightFiles:
    """Writes weights where servers read them.

    Args:
        folder: readable by the servers under the same path; None: a temporary one, made when it is needed.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._given = Path(folder).absolute() if folder else None
        self._own: Path | None = None
        self._held = contextlib.ExitStack()

    @contextlib.contextmanager
    def written(self, weights: Mapping[str, Tensor]) -> Iterator[Path]:
        """A file of weights, on the CPU and contiguous, for the length of a block.

        Raises:
            OSError: it cannot be written, as on a full disk.
        """
        path = (self._given or self._own or self.own_folder()) / "weights" / WEIGHTS_FILE
        try:
            with whole_folder(path.parent) as staged:
                save_file(dict(weights), staged / path.name)
            yield path
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)

    def own_folder(self) -> Path:
        """A folder of this process, locked as long as it lives; those of dead ones are removed."""
        parent = Path(tempfile.gettempdir())
        for left in parent.glob(f"{FOLDER}*"):
            with contextlib.suppress(OSError):  # locked: its process lives; or somebody else's
                with locked(left):
                    remove(left)
        self._own = Path(tempfile.mkdtemp(prefix=FOLDER))
        with contextlib.suppress(OSError):  # where nothing can be locked, nothing is removed either
            self._held.enter_context(locked(self._own))
        return self._own

    def close(self) -> None:
        """Remove the folder that was made."""
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)
        self._held.close()
