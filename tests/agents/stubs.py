"""Starts `stub_vllm`, and tells it what to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from small_chat import ANSWER
from transformers import AutoTokenizer

STUB = Path(__file__).with_name("stub_vllm.py")


class Stub:
    """A running `stub_vllm`."""

    def __init__(
        self, folder: Path, checkpoint: Path, *more: str, texts: Sequence[str] = (ANSWER,)
    ) -> None:
        folder.mkdir()
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        end, image = (tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|image_pad|>"))
        answers = [[*tokenizer.encode(text, add_special_tokens=False), end] for text in texts]
        command = [sys.executable, str(STUB), str(folder), json.dumps(answers), str(image), *more]
        self.folder, self.process = folder, subprocess.Popen(command)
        while not (folder / "port").exists():
            assert self.process.poll() is None, "the stub has ended"
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{(folder / 'port').read_text()}"

    def _lines(self, name: str) -> int:
        file = self.folder / name
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def answered(self) -> int:
        """Questions that it has answered, of one turn each."""
        return self._lines("answered")

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for an answer."""
        return self._lines("asked") > self.answered

    def go(self) -> None:
        """Let it answer."""
        (self.folder / "go").touch()

    def hold(self) -> None:
        """Let it keep its answers back."""
        (self.folder / "go").unlink(missing_ok=True)

    def go_on_reading(self) -> None:
        """Let it take weights."""
        (self.folder / "push-waits").unlink(missing_ok=True)

    def hold_reading(self) -> None:
        """Let it keep back that it has read weights."""
        (self.folder / "push-waits").touch()
