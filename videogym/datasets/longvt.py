"""LongVT's training rows: questions for reinforcement learning, conversations for fine-tuning.

From the parquet files of ``LongVT-Parquet``, or files of the same rows. For reinforcement learning:

| field | read as |
|---|---|
| `videos` | the `video` of the first, without `file://` |
| `extra_info.question` | `question` |
| `reward_model.ground_truth` | `answer`; two numbers: a moment, see `videogym.datasets.moments` |
| `extra_info.video_segment` | `evidence`, `[start_s, end_s]`; may be absent or null |
| `data_source` | `source` |

For fine-tuning (SFT and RFT files) the one field `messages`: the `video_url` and the texts of the first
user message are `video` and `question`, without the instruction and the path that follow it, and the last
`<answer>` of the last assistant message is `answer`. What the assistant says is kept beside the task; its
crops are what a model did and no evidence. Rows that show no video are left out and counted in a warning;
those of them that show images are conversations of their own, see `read_longvt_images`.

The other plain fields of a row and of its `extra_info` are `metadata`.

Task ids are the file's name and the number of the row. All tasks are open: LongVT has its answers judged by
their meaning.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from videogym.datasets.fields import (
    Fields,
    file_of,
    from_zero,
    object_of,
    objects_of,
    segment,
    short,
    text_of,
    unpacked,
    video_of,
)
from videogym.datasets.moments import moment_task
from videogym.datasets.row_metadata import metadata_of
from videogym.datasets.rows import Row, collect, read_rows
from videogym.datasets.tasks import TaskFileError, TaskList
from videogym.state import Task

RL_FIELDS = ("data_source", "videos", "reward_model", "extra_info")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # of files that are shown as images
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# What LongVT's prompts put after the question: how to answer, and where the video is.
_AFTER_QUESTION = (
    "Think first, call **crop_video**",
    "You FIRST think about the reasoning process",
    "The Video path for this video is:",
    "The video path for this video is:",
    "Video 0 has video path:",
)


@dataclass(frozen=True)
class Conversation:
    """A conversation that somebody played: its task and what the assistant said, message by message."""

    task: Task
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ImageMessage:
    """One message of a conversation about images."""

    role: str  # "system", "user" or "assistant"
    parts: tuple[tuple[str, str], ...]  # ("text", what it says) or ("image", path of a file)


@dataclass(frozen=True)
class ImageConversation:
    """A conversation about images: no episode, and nothing to look for."""

    name: str  # the file's name and the number of the row
    messages: tuple[ImageMessage, ...]  # the last is the assistant's, and some output stands after an image


def read_longvt_rl(path: str | os.PathLike[str]) -> TaskList:
    """Read LongVT's rows for reinforcement learning.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return collect(path, read_rows(path, RL_FIELDS), _read_rl)


def read_longvt_sft(path: str | os.PathLike[str]) -> TaskList:
    """Read the tasks of LongVT's rows for fine-tuning.

    Raises:
        TaskFileError: the file cannot be read or a row is invalid.
    """
    return TaskList(trace.task for trace in _conversations(path))


def read_longvt_traces(path: str | os.PathLike[str]) -> list[Conversation]:
    """Read LongVT's rows for fine-tuning with what the assistant says in them.

    Raises:
        TaskFileError: the file cannot be read, a row is invalid or none shows a video.
    """
    return list(_conversations(path))


def read_longvt_images(path: str | os.PathLike[str]) -> list[ImageConversation]:
    """Read LongVT's rows for fine-tuning that show images and no video; all others are passed over.

    Raises:
        TaskFileError: the file cannot be read, a row is invalid, or shows an image whose name ends in none
            of `IMAGE_SUFFIXES`, or none shows an image.
    """
    found = []
    for row in read_rows(path, ("messages",)):
        try:
            found.append(_read_images(row))
        except ValueError as error:
            raise TaskFileError(row.path, row.place, str(error)) from error
    shown = [conversation for conversation in found if conversation is not None]
    if not shown:
        raise TaskFileError(path, "", "no row shows an image without a video")
    return shown


def _conversations(path: str | os.PathLike[str]) -> Iterator[Conversation]:
    count, shown = 0, 0
    for row in read_rows(path, ("messages",)):
        try:
            trace = _read_sft(row)
        except ValueError as error:
            raise TaskFileError(row.path, row.place, str(error)) from error
        count += 1
        if trace is not None:
            shown += 1
            yield trace
    if not shown:
        raise TaskFileError(path, "", "no row shows a video")
    if shown < count:
        left = f"{count - shown} of {count} rows show no video and are left out"
        warnings.warn(f"{os.fspath(path)}: {left}", stacklevel=3)


# --- reinforcement learning --------------------------------------------------------------------


def _read_rl(line: Row) -> Task:
    row = unpacked(line.fields, *RL_FIELDS[1:])
    videos, extra = objects_of(row, "videos"), object_of(row, "extra_info")
    if not videos:
        raise ValueError("field 'videos' must name a video, got []")
    truth = object_of(row, "reward_model").get("ground_truth")
    question, source = text_of(extra, "question"), text_of(row, "data_source")
    task_id, video = line.name, video_of(videos[0], "video")
    metadata = metadata_of(row, (*RL_FIELDS, "prompt")) | metadata_of(
        extra, ("question", "answer", "video_segment")
    )
    if isinstance(truth, list):
        moment = segment(from_zero(line, truth), "ground_truth")
        return moment_task(task_id, video, question, (moment,), source, metadata)
    given = extra.get("video_segment")
    return Task(
        task_id=task_id,
        video=video,
        question=question,
        kind="open",
        answer=text_of({"ground_truth": truth}, "ground_truth"),
        evidence=None if given is None else (segment(from_zero(line, given), "video_segment"),),
        source=source,
        metadata=metadata,
    )


# --- fine-tuning -------------------------------------------------------------------------------


def _read_sft(line: Row) -> Conversation | None:
    messages = objects_of(unpacked(line.fields, "messages"), "messages")
    asked = next((m for m in messages if m.get("role") == "user"), None)
    if asked is None:
        raise ValueError("field 'messages' must hold a message of the user")
    video = next((part for part in _parts(asked) if part.get("type") == "video_url"), None)
    if video is None:
        return None
    outputs = tuple("".join(_texts(m)) for m in messages if m.get("role") == "assistant")
    answers = _ANSWER.findall(outputs[-1]) if outputs else []
    if not answers:
        raise ValueError("field 'messages' must end in an assistant message with <answer>...</answer>")
    address = video.get("video_url")
    task = Task(
        task_id=line.name,
        video=video_of(address, "url") if isinstance(address, dict) else video_of(video, "video_url"),
        question=_question("\n".join(_texts(asked))),
        kind="open",
        answer=text_of({"<answer>": answers[-1].strip()}, "<answer>"),
        source="longvt-sft",
        metadata=metadata_of(line.fields, ("messages",)),
    )
    return Conversation(task, outputs)


def _read_images(line: Row) -> ImageConversation | None:
    rows = objects_of(unpacked(line.fields, "messages"), "messages")
    parts = [part for row in rows for part in _parts(row)]
    kinds = {part.get("type") for part in parts}
    if "video_url" in kinds or not kinds & {"image_url", "image"}:
        return None
    messages = tuple(_message(row) for row in rows)
    roles = [message.role for message in messages]
    if roles[-1] != "assistant":
        raise ValueError(f"field 'messages' must end with the assistant, got {short(roles[-1])}")
    if ("assistant", "assistant") in pairwise(roles) or next(r for r in roles if r != "system") != "user":
        raise ValueError("field 'messages' must let user and assistant take turns, the user first")
    return ImageConversation(line.name, messages)


def _message(row: Fields) -> ImageMessage:
    role = text_of(row, "role")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"field 'role' must be system, user or assistant, got {short(role)}")
    parts: list[tuple[str, str]] = []
    for part in _parts(row):
        kind = part.get("type")
        if kind == "text":
            parts.append(("text", text_of(part, "text", empty=True)))
        elif kind in ("image_url", "image") and role == "user":
            inner = part.get(kind)
            address = object_of(part, kind) if isinstance(inner, dict) else {"url": inner}
            parts.append(("image", _image_of(address)))
        else:
            raise ValueError(f"field 'content': a message of the {role} cannot show {short(kind)}")
    if role == "assistant" and not "".join(text for _, text in parts).strip():
        raise ValueError("field 'content': the assistant says nothing")
    return ImageMessage(role, tuple(parts))


def is_image(path: str) -> bool:
    """Whether a file is shown as an image, by its name; all others are videos."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def _image_of(address: Fields) -> str:
    path = file_of(address, "url")
    if not is_image(path):
        raise ValueError(
            f"field 'url' must be an image that ends in {', '.join(IMAGE_SUFFIXES)}, got {short(path)}"
        )
    return path


def _question(text: str) -> str:
    question = text
    for after in _AFTER_QUESTION:
        question = question.partition(after)[0]
    question = question.strip()
    if not question:
        raise ValueError(f"field 'messages': there is no question in the first user message, {short(text)}")
    return question


def _texts(message: Fields) -> list[str]:
    return [text_of(part, "text", empty=True) for part in _parts(message) if part.get("type") == "text"]


def _parts(message: Fields) -> list[Fields]:
    """What a message is made of; a text stands for one part."""
    content = message.get("content")
    return (
        [{"type": "text", "text": content}] if isinstance(content, str) else objects_of(message, "content")
    )
