"""What a pipeline made, in the formats of trainers: task files, LongVT's rows, and traces.

Rows have the columns of ``LongVT-Parquet``, as parquet where the file's name ends so, else as JSON Lines.
`videogym.datasets` reads both. Frames of conversations are written as PNG beside the file, as the recipe
showed them. Chat formats of other trainers are made of traces by ``python -m agents.tools.export``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from videogym.data.filtering import answer_of, question_of
from videogym.data.scenes import open_unchanged
from videogym.data.verdicts import Verdicts
from videogym.data.work import WorkFolder
from videogym.datasets.parquet import write_parquet
from videogym.datasets.task_files import task_of_row, write_tasks
from videogym.grammars import FramePart, Message, TextPart
from videogym.sizes import clip_size
from videogym.state import Clip, Task
from videogym.traces import Trace, from_line, to_line
from videogym.traces.replay import recipe_of, state_of
from videogym.video import FrameStore
from videogym.writing import appearing

ExportFormat = Literal["tasks", "traces", "longvt-rl", "longvt-sft"]
_PATH = "The Video path for this video is: "


def export(
    work: WorkFolder,
    form: ExportFormat,
    out: str | os.PathLike[str],
    accepted: str | os.PathLike[str] | None = None,
) -> int:
    """Write what was kept; returns how many tasks or traces.

    Args:
        work: whose.
        form: ``"tasks"`` a task file, ``"longvt-rl"`` LongVT's rows of questions, ``"traces"`` a file for
            `videogym.traces`, ``"longvt-sft"`` LongVT's rows of conversations.
        out: the file; it appears when it is whole.
        accepted: file of verdicts (`videogym play --review`): only what a person accepted is written.

    Raises:
        ValueError: there is no such format, or traces are of another grammar than LongVT's.
        DataError: the step before was not run, or a file holds something else.
        VideoChanged: a video is not the one whose scenes were found.
        OSError: the file cannot be written.
    """
    if form not in get_args(ExportFormat):
        raise ValueError(f"a format is one of {', '.join(get_args(ExportFormat))}, got {form!r}")
    verdicts = None if accepted is None else Verdicts(accepted)
    with FrameStore(video_root=work.video_root) as store:
        for row in work.kept("scenes"):
            open_unchanged(store, row)
        path = Path(out)
        if form in ("tasks", "longvt-rl"):
            tasks = [task for task in kept_tasks(work) if _is_wanted(task, verdicts)]
            if form == "tasks":
                write_tasks(path, tasks)
            else:
                _write_rows(path, [rl_row(task, i, work.video_root) for i, task in enumerate(tasks)])
            return len(tasks)
        traces = [trace for trace in kept_traces(work) if _is_wanted(trace.task, verdicts)]
        if form == "traces":
            with appearing(path) as partial, partial.open("wb") as file:
                file.writelines(map(to_line, traces))
        else:
            frames = _Frames(path.with_name(f"{path.stem}_frames"), store)
            _write_rows(path, [sft_row(trace, work.video_root, frames.path) for trace in traces])
        return len(traces)


def _is_wanted(task: Task, verdicts: Verdicts | None) -> bool:
    return verdicts is None or verdicts.of(task) is True


def kept_tasks(work: WorkFolder) -> list[Task]:
    """The tasks that the filter kept."""
    return [task_of_row(row["task"]) for row in work.kept("filter")]


def kept_traces(work: WorkFolder) -> list[Trace]:
    """The traces that count."""
    return [from_line(json.dumps(row["trace"]).encode()) for row in work.kept("traces")]


# --- LongVT's rows -------------------------------------------------------------------------------


def rl_row(task: Task, index: int, video_root: Path) -> dict[str, Any]:
    """A row of LongVT's for reinforcement learning."""
    question, answer, url = question_of(task), answer_of(task), _url(task, video_root)
    segment = task.evidence[0] if task.evidence else None
    return {
        "data_source": "longvt",
        "prompt": [{"role": "user", "content": f"<video>{question}\n{_PATH}{url}"}],
        "videos": [{"video": url}],
        "ability": "video",
        "reward_model": {"ground_truth": answer, "style": "model"},
        "extra_info": {
            "question": question,
            "answer": answer,
            "video_segment": None if segment is None else [segment.start_s, segment.end_s],
            "need_tools_kwargs": True,
            # An object without a field is no type of parquet.
            "tools_kwargs": {"crop_video": {"create_kwargs": {"video": url}}},
            "index": index,
            "split": "train",
        },
    }


def sft_row(
    trace: Trace, video_root: Path, frame_path: Callable[[Trace, FramePart], str]
) -> dict[str, Any]:
    """A row of LongVT's for fine-tuning: the conversation, with what the assistant said as it was said.

    Args:
        trace: an episode under a recipe with LongVT's grammar.
        video_root: folder of its video.
        frame_path: where a frame is, as a file.

    Raises:
        ValueError: it is of another grammar.
    """
    recipe = recipe_of(trace)
    if not recipe.language.name.startswith("longvt"):
        raise ValueError(
            f"LongVT's rows are of its grammar; these traces were played under {recipe.name}, "
            f"in the grammar {recipe.language.name}"
        )
    system, _, *rest = recipe.language.messages(state_of(trace, recipe))
    url = _url(trace.task, video_root)
    asked = [
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "text", "text": f"{question_of(trace.task)}\n{_PATH}{url}"},
    ]
    talk = [
        {"role": "system", "content": [{"type": "text", "text": system.text}]},
        {"role": "user", "content": asked},
    ]
    for message in rest:
        role = "assistant" if message.role == "assistant" else "user"
        parts = list(_content(message, lambda part: frame_path(trace, part)))
        talk.append({"role": role, "content": parts})
    return {"id": trace.task.task_id, "messages": talk}


def _content(message: Message, frame_path: Callable[[FramePart], str]) -> Iterator[dict[str, Any]]:
    for part in message.parts:
        if isinstance(part, TextPart):
            yield {"type": "text", "text": part.text}
        else:
            yield {"type": "image_url", "image_url": {"url": f"file://{frame_path(part)}"}}


class _Frames:
    """Writes frames as they are asked for, each once."""

    def __init__(self, folder: Path, store: FrameStore) -> None:
        self._folder, self._store = Path(os.path.abspath(folder)), store

    def path(self, trace: Trace, part: FramePart) -> str:
        """Where a frame of an episode is."""
        rules = recipe_of(trace).rules
        size = clip_size(Clip((part.time_s,), part.region, part.scale), trace.video, rules)
        region = None if part.region is None else part.region.as_tuple()
        named = repr((trace.video.fingerprint, part.time_s, region, size))
        path = self._folder / f"{hashlib.sha256(named.encode()).hexdigest()[:20]}.png"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            batch = self._store.frames(trace.task.video, [part.time_s], size=size, region=region)
            with appearing(path) as partial:
                Image.fromarray(batch.pixels[0]).save(partial, "PNG")
        return str(path)


def _url(task: Task, video_root: Path) -> str:
    return f"file://{video_root / task.video}"


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if path.suffix == ".parquet":
        write_parquet(path, rows)
        return
    with appearing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
