"""Sampled conversations for people: what a policy read and wrote, what it was paid, and small pictures.

A conversation is read from its record alone, so that those of any recipe can be shown. They are written as
a page without scripts, and given to the run's logger. Nothing is trained by them.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogym.video import VideoError

from ..models.qwen_vl import QwenVL
from ..models.visuals import Visual, resolve
from ..training.loggers import Shown
from ..training.ranks import is_first
from ..training.run import TrainingRun
from ..training.staging import sweep, whole_file
from .config import ConversationConfig
from .records import Record, TurnRecord

FOLDER = "conversations"  # of a run
PICTURE = 128  # longer side of a small picture, pixels
PICTURES = 8  # of a turn
_PLACEHOLDERS = re.compile(r"(?:<\|vision_start\|><\|(?:image|video)_pad\|><\|vision_end\|>)+")
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>body{{font:15px system-ui;margin:2rem auto;max-width:70rem;padding:0 1rem}}
pre{{white-space:pre-wrap;overflow-wrap:anywhere;max-height:20rem;overflow:auto;background:#8881;padding:.5rem}}
.said{{border-left:4px solid #2f6fb7}}</style><h1>{title}</h1>
"""


class ConversationLog:
    """Conversations of a run, some of every so many iterations; of several ranks the first writes.

    Args:
        config: how often and how many.
        run: whose folder and logger get them; those of iterations that are done again go.
        model: has the tokenizer, and the store of frames.
    """

    def __init__(self, config: ConversationConfig, run: TrainingRun, model: QwenVL) -> None:
        self._config, self._run, self._model = config, run, model
        self._folder = run.out / FOLDER
        if is_first() and self._folder.is_dir():
            sweep(self._folder)
            for path in self._folder.glob("*.html"):
                if path.stem.isdigit() and int(path.stem) >= run.first_iteration:
                    path.unlink()

    def write(self, iteration: int, records: Sequence[Record]) -> None:
        """Show some of an iteration's episodes, of as many tasks as there are.

        Raises:
            OSError: the page cannot be written.
        """
        every = self._config.conversations_every
        if not (every and is_first() and self._run.is_due(iteration, every)):
            return
        with self._run.span("conversations"):
            chosen = sorted(records, key=lambda record: record.sample_index)
            some = list(islice(chosen, self._config.conversations_shown))
            pictures = [[_pictures(turn, self._model) for turn in record.turns] for record in some]
            title = f"{self._run.out.resolve().name}, iteration {iteration}"
            with whole_file(self._folder / f"{iteration:06d}.html") as file:
                file.write(_HEAD.format(title=escape(title)).encode())
                for record, rows in zip(some, pictures, strict=True):
                    file.write(_section(record, rows, self._model).encode())
            shown = [
                Shown(
                    record.task_id,
                    _markdown(record, rows, self._model),
                    _sheet([row for row in rows if not isinstance(row, str)]),
                    record.total_reward,
                    record.success,
                )
                for record, rows in zip(some, pictures, strict=True)
            ]
            self._run.show(iteration, shown)


Pictures = list[NDArray[np.uint8]]  # (h, w, 3) each


def _pictures(turn: TurnRecord, model: QwenVL) -> Pictures | str:
    """Small pictures of some of the frames of a turn, evenly spread; or why there are none."""
    frames = [(visual, time_s) for visual in turn.visuals for time_s in visual.times_s]
    chosen = np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int)
    small = [_small(*frames[place]) for place in chosen]
    try:
        return [pixels[0] for pixels in resolve(model.store, small)]
    except (VideoError, OSError) as error:
        return str(error)


def _small(visual: Visual, time_s: float) -> Visual:
    scale = min(1.0, PICTURE / max(visual.size))
    width, height = (max(1, round(side * scale)) for side in visual.size)
    return visual._replace(times_s=(time_s,), size=(width, height))


def _sheet(rows: Sequence[Pictures]) -> NDArray[np.uint8] | None:
    """All pictures on one white sheet, (H, W, 3), a row for every turn that brought some."""
    rows = [row for row in rows if row]
    if not rows:
        return None
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    width = max(sum(picture.shape[1] for picture in row) for row in rows)
    sheet = np.full((sum(heights), width, 3), 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture in row:
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += picture.shape[1]
        top += height
    return sheet


def _text(ids: Sequence[int], model: QwenVL) -> str:
    """What ids say, frames in a word."""
    text = str(model.tokenizer.decode(list(ids)))
    return _PLACEHOLDERS.sub(lambda found: f"[{found[0].count('_pad|>')} visuals]", text)


def _heading(record: Record) -> str:
    outcome = {True: "right", False: "wrong", None: "not judged"}[record.success]
    cut = f", cut: {record.abort_reason}" if record.abort_reason else ""
    return f"{record.task_id}: {outcome}, reward {record.total_reward:.3f}{cut}"


def _paid(turn: TurnRecord) -> str:
    terms = [f"{name} {value:.3f}" for name, value in turn.terms.items() if value is not None]
    refused = [f"refused: {turn.error}"] if turn.error else []
    return ", ".join([f"reward {turn.reward:.3f}", *terms, *refused])


def _section(record: Record, pictures: Sequence[Pictures | str], model: QwenVL) -> str:
    """A conversation as HTML."""
    parts = [f"<h2>{escape(_heading(record))}</h2><pre>{escape(_text(record.head, model))}</pre>"]
    for turn, row in zip(record.turns, pictures, strict=True):
        parts.append(f"<pre>{escape(_text(turn.observation, model))}</pre>")
        if isinstance(row, str):
            parts.append(f"<p>no frames: {escape(row)}</p>")
        else:
            parts += [f'<img src="data:image/jpeg;base64,{_jpeg(picture)}" alt="">' for picture in row]
        if turn.output:
            parts.append(f'<pre class="said">{escape(_text(turn.output, model))}</pre>')
            parts.append(f"<p>{escape(_paid(turn))}</p>")
    return "\n".join([*parts, ""])


def _jpeg(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=60)
    return base64.b64encode(file.getvalue()).decode()


def _markdown(record: Record, pictures: Sequence[Pictures | str], model: QwenVL) -> str:
    """A conversation as Markdown; what was said stands indented, as it is."""

    def block(ids: Sequence[int]) -> str:
        return "\n".join(f"    {line}" for line in _text(ids, model).splitlines())

    parts = [f"**{_heading(record)}**", block(record.head)]
    for number, (turn, row) in enumerate(zip(record.turns, pictures, strict=True), 1):
        parts += [f"turn {number}", block(turn.observation)]
        parts += [f"no frames: {row}"] if isinstance(row, str) else []
        parts += [block(turn.output), _paid(turn)] if turn.output else []
    return "\n\n".join(parts)
