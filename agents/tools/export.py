"""Records as the chat data of other trainers: TRL, LLaMA-Factory and ms-swift.

Frames are written as PNG at the size at which the policy saw them, one file a distinct frame, and named in
the order of their places in the text. Tool calls stay text of the assistant and tool replies text of the
user, as in LongVT's published data, so that nothing depends on how a trainer renders tools. TRL and
ms-swift are told of every message whether it is to be learned: an assistant's demonstrated mistake is not.

Run ``python -m agents.tools.export runs/grpo/records --checkpoint runs/grpo/model --format trl --out
data``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from videogym import FrameStore

from ..models.qwen_vl import token_ids
from ..models.visuals import FrameReader, Visual, resolve
from ..training.staging import sweep, whole_file
from ..vlm.records import Record, fingerprint, read_records

Format = Literal["trl", "llama_factory", "ms_swift"]
ROLES = ("system", "user", "assistant")
IMAGE = "<image>"  # of LLaMA-Factory and ms-swift: where an image stands in the text


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: str  # "system", "user" or "assistant"
    parts: tuple[str | Visual, ...]
    trainable: bool  # an output that is to be imitated


def conversation(record: Record, tokenizer: PreTrainedTokenizerBase) -> list[ChatMessage]:
    """The messages of a record, as its ids say them.

    Raises:
        ValueError: the record shows videos, which these formats cut themselves, an output holds a token
            that begins messages, or the ids are not laid out in messages.
    """
    if any(len(visual.times_s) > 1 for turn in record.turns for visual in turn.visuals):
        raise ValueError(f"{_name(record)} shows videos; export records with images")
    begin, end, pad = token_ids(tokenizer, "<|im_start|>", "<|im_end|>", "<|image_pad|>")
    drop = set(token_ids(tokenizer, "<|vision_start|>", "<|vision_end|>"))
    ids = list(record.head)
    learned: dict[int, bool] = {}  # by the place where an output begins
    for turn in record.turns:
        ids += turn.observation
        if begin in turn.output:
            raise ValueError(
                f"{_name(record)}: an output holds <|im_start|>, which a trainer "
                "would take for the beginning of a message; leave such episodes out"
            )
        if turn.output:
            learned[len(ids)] = turn.trainable
        ids += turn.output
    visuals = iter(visual for turn in record.turns for visual in turn.visuals)
    messages = []
    starts = [place for place, token in enumerate(ids) if token == begin]
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        body = ids[start + 1 : stop]
        body = body[: body.index(end)] if end in body else body
        parts: list[str | Visual] = []
        for is_frame, some in groupby((i for i in body if i not in drop), key=lambda token: token == pad):
            tokens = list(some)
            parts += [next(visuals) for _ in tokens] if is_frame else [_text(tokens, tokenizer)]
        role = next((name for name in ROLES if str(parts[0]).startswith(name)), None)
        if role is None:
            raise ValueError(f"{_name(record)}: no message begins with {parts[0]!r}")
        parts[0] = str(parts[0])[len(role) :].removeprefix("\n")
        said = [part for part in parts if part]
        outputs = [learned[place] for place in range(start, stop) if place in learned]
        # What stands last may be the place where an output that never came would begin; one that came and
        # said nothing is a message all the same.
        if said or outputs:
            messages.append(ChatMessage(role, tuple(said) or ("",), any(outputs)))
    return messages


def _name(record: Record) -> str:
    return f"episode {record.group}/{record.sample_index}"


def _text(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


class FrameFiles:
    """Writes frames as they are asked for, each once."""

    def __init__(self, folder: Path, store: FrameReader) -> None:
        self._folder, self._store = folder, store
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)

    def path(self, visual: Visual) -> str:
        """Where a frame is, relative to the folder's parent."""
        name = hashlib.sha256(repr(tuple(visual)).encode()).hexdigest()[:20]
        path = self._folder / f"{name}.png"
        if not path.exists():
            (frames,) = resolve(self._store, [visual])
            with whole_file(path, sweeps=False) as file:
                Image.fromarray(frames[0]).save(file, "PNG")
        return f"{self._folder.name}/{path.name}"


def row(
    record: Record, tokenizer: PreTrainedTokenizerBase, files: FrameFiles, form: Format
) -> dict[str, Any]:
    """One row of a data set.

    Raises:
        ValueError: a text holds the mark of an image, which a trainer would take for one.
    """
    messages = conversation(record, tokenizer)
    images = [files.path(part) for said in messages for part in said.parts if isinstance(part, Visual)]
    if form == "trl":
        rows = [
            {
                "role": said.role,
                "content": [
                    {"type": "image"} if isinstance(part, Visual) else {"type": "text", "text": part}
                    for part in said.parts
                ],
                "train": said.trainable,
            }
            for said in messages
        ]
        return {"messages": rows, "images": images}
    texts: list[dict[str, Any]] = []
    for said in messages:
        if any(IMAGE in part for part in said.parts if isinstance(part, str)):
            raise ValueError(f"{_name(record)}: a text holds {IMAGE!r}")
        text = "".join(IMAGE if isinstance(part, Visual) else part for part in said.parts)
        texts.append({"role": said.role, "content": text})
    if form == "llama_factory" and any(
        said.role == "assistant" and not said.trainable for said in messages
    ):
        raise ValueError(
            f"{_name(record)} holds a mistake that is not to be learned, which "
            "LLaMA-Factory cannot be told; leave such demonstrations out, or export for trl or ms_swift"
        )
    if form == "ms_swift":
        for said, message in zip(messages, texts, strict=True):
            if said.role == "assistant":
                message["loss"] = said.trainable
    return {"messages": texts, "images": images}


def export(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    store: FrameReader,
    out: Path,
    form: Format,
) -> int:
    """Write ``data.jsonl`` and its frames, and for LLaMA-Factory ``dataset_info.json``; returns the rows.

    Episodes that were cut from outside are left out.
    """
    files = FrameFiles(out / "frames", store)
    count = 0
    with whole_file(out / "data.jsonl") as file:
        for record in records:
            if record.abort_reason:
                continue
            line = json.dumps(row(record, tokenizer, files, form), ensure_ascii=False) + "\n"
            file.write(line.encode())
            count += 1
    if form == "llama_factory":
        stanza = {
            "file_name": "data.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
        with whole_file(out / "dataset_info.json") as file:
            file.write((json.dumps({"videogym": stanza}, indent=2) + "\n").encode())
    return count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path, help="file or folder of records")
    parser.add_argument("--checkpoint", required=True, help="checkpoint whose tokenizer made the records")
    parser.add_argument("--format", choices=get_args(Format), required=True, help="whose chat format")
    parser.add_argument("--out", type=Path, required=True, help="folder for data and frames")
    parser.add_argument("--video-root", help="folder below which the videos lie (default: none)")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint, trust_remote_code=False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records = tqdm(read_records(arguments.records, tokenizer=fingerprint(tokenizer)), "episodes")
    store = FrameStore(video_root=arguments.video_root)
    count = export(records, tokenizer, store, arguments.out, arguments.format)
    sys.stdout.write(f"{count} episodes are in {arguments.out}\n")


if __name__ == "__main__":
    main()
