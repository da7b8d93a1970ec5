"""The process in which decord runs: a program of its own that imports nothing of videogym.

decord can hang for ever with the interpreter's lock held, so it must be somewhere it can be killed.
Requests are lines of JSON on stdin; answers on stdout are a line of JSON, then as many bytes as it
says. Ends when its stdin does, and by itself when a step takes too long.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any, BinaryIO

import decord

_CHUNK = 8  # frames decoded at a time, at native size


def main() -> None:
    """Serve requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decord prints must not get between the answers
    decord.logging.set_level(decord.logging.QUIET)
    reader: Any = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _watch(request)
        try:
            if reader is None:
                reader = _open(request, answers)
            else:
                _read(reader, request, answers)
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            _answer(answers, b"", error=str(error).splitlines()[0])
        faulthandler.cancel_dump_traceback_later()


def _open(request: dict[str, Any], answers: BinaryIO) -> Any:
    reader = decord.VideoReader(request["path"], num_threads=1)
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype("<f8")
    _answer(answers, starts.tobytes(), version=decord.__version__)
    return reader


def _read(reader: Any, request: dict[str, Any], answers: BinaryIO) -> None:
    ordinals = request["ordinals"]
    for start in range(0, len(ordinals), _CHUNK):
        _watch(request)
        frames = reader.get_batch(ordinals[start : start + _CHUNK]).asnumpy()
        _answer(answers, frames.tobytes(), shape=frames.shape)
    reader.seek(0)  # otherwise it decodes on, without limit


def _watch(request: dict[str, Any]) -> None:
    # The parent may be dead by the time decord hangs; this works without the interpreter's lock.
    faulthandler.dump_traceback_later(request["deadline_s"], exit=True)


def _answer(answers: BinaryIO, body: bytes, **fields: Any) -> None:
    answers.write(json.dumps(fields | {"bytes": len(body)}).encode() + b"\n")
    answers.write(body)
    answers.flush()


if __name__ == "__main__":
    main()
