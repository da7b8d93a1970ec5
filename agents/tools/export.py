"""Records and traces as the chat data of other trainers: TRL, LLaMA-Factory and ms-swift.

Frames are written as PNG at the size at which the policy saw them, one file a distinct frame, and named in
the order of their places in the text. Tool calls stay text of the assistant and tool replies text of the
user, as in LongVT's published data, so that nothing depends on how a trainer renders tools. TRL and
ms-swift are told of every message whether it is to be learned: an assistant's demonstrated mistake is not.

Run ``python -m agents.tools.export runs/grpo/records --checkpoint runs/grpo/model --format trl --out
data``, or with a file of traces, as ``videogym data export --format traces`` writes it, and no checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from videogym import FrameStore, Recipe, State
from videogym.geometry import intersection_s
from videogym.grammars import FramePart, Part
from videogym.mistakes import told_in_a_line
from videogym.sizes import clip_size
from videogym.state import Clip, Turn
from videogym.traces import Trace, TraceFiles, looks_of
from videogym.traces.replay import recipe_of, state_of
from videogym.video import VideoChanged

from ..models.qwen_vl import token_ids
from ..models.visuals import WHOLE_FRAME, FrameReader, Visual, resolve
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


def trace_conversation(trace: Trace) -> list[ChatMessage]:
    """The messages of a trace in the words of its recipe; a look that missed all evidence is no example.

    Raises:
        ValueError: the recipe is none of the named ones, or has a pool, or the episode was played in
            another grammar than the recipe's, whose prompt would speak of other calls.
    """
    recipe = recipe_of(trace)
    state = state_of(trace, recipe)
    _require_own_grammar(recipe, state)
    hits = iter([_is_example(trace, paid.turn) for paid in trace.turns])
    return [
        ChatMessage(
            "user" if message.role == "tool" else message.role,
            tuple(_merged(_visual(part, state) for part in message.parts)),
            message.role == "assistant" and next(hits),
        )
        for message in recipe.language.messages(state)
    ]


def _require_own_grammar(recipe: Recipe, state: State) -> None:
    last = state.turns[-1] if state.turns else None
    if last is None or last.text is None:
        return
    before = replace(state, turns=state.turns[:-1], ending="")
    done = tuple(result.action for result in last.results)
    if last.error is None and recipe.language.parse(last.text, before).actions != done:
        raise ValueError(
            f"the episode of task {state.task.task_id!r} was not played in {recipe.language.name}, the "
            f"grammar of {recipe.name}: {last.text!r:.80}"
        )


def _is_example(trace: Trace, turn: Turn) -> bool:
    looks = looks_of(turn, trace.video.duration_s)
    evidence = trace.task.evidence
    missed = bool(looks) and bool(evidence) and not intersection_s(looks, evidence or ())
    return turn.error is None and not missed


def _visual(part: Part, state: State) -> str | Visual:
    if not isinstance(part, FramePart):
        return part.text
    region = part.region.as_tuple() if part.region else WHOLE_FRAME
    size = clip_size(Clip((part.time_s,), part.region, part.scale), state.video, state.rules)
    return Visual(state.task.video, (part.time_s,), region, size)


def _merged(parts: Iterable[str | Visual]) -> Iterator[str | Visual]:
    """The parts with neighbouring texts as one."""
    for is_frame, some in groupby(parts, key=lambda part: isinstance(part, Visual)):
        if is_frame:
            yield from some
        else:
            yield "".join(map(str, some))


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


def row(name: str, messages: Sequence[ChatMessage], files: FrameFiles, form: Format) -> dict[str, Any]:
    """One row of a data set.

    Raises:
        ValueError: a text holds the mark of an image, which a trainer would take for one, or LLaMA-Factory
            would imitate a mistake.
    """
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
            raise ValueError(f"{name}: a text holds {IMAGE!r}")
        text = "".join(IMAGE if isinstance(part, Visual) else part for part in said.parts)
        texts.append({"role": said.role, "content": text})
    if form == "llama_factory" and any(
        said.role == "assistant" and not said.trainable for said in messages
    ):
        raise ValueError(
            f"{name} holds a mistake that is not to be learned, which "
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
    """Write records; returns the rows. Episodes that were cut from outside are left out."""
    whole = (record for record in records if not record.abort_reason)
    talks = ((_name(record), conversation(record, tokenizer)) for record in whole)
    return write_conversations(talks, store, out, form)


def export_traces(traces: Iterable[Trace], store: FrameStore, out: Path, form: Format) -> tuple[int, int]:
    """Write traces that ended with the right answer; returns the rows, and how many others were right.

    LLaMA-Factory cannot be told that a wrong look is no example: traces with one are left out for it.

    Raises:
        ValueError: as for `trace_conversation`.
        VideoChanged: a video is not the one that was played.
    """
    talks, left = [], 0
    for trace in traces:
        if not trace.correct or trace.cut:
            continue
        _require_unchanged(trace, store)
        said = trace_conversation(trace)
        if form == "llama_factory" and any(one.role == "assistant" and not one.trainable for one in said):
            left += 1
            continue
        talks.append((f"the episode of task {trace.task.task_id!r}", said))
    return write_conversations(talks, store, out, form), left


def _require_unchanged(trace: Trace, store: FrameStore) -> None:
    found, played = store.open(trace.task.video).meta.fingerprint, trace.video.fingerprint
    if found != played:
        raise VideoChanged(
            f"task {trace.task.task_id!r}: {trace.task.video} is not the video that was played: its "
            f"fingerprint is {found!r}, then it was {played!r}"
        )


def write_conversations(
    talks: Iterable[tuple[str, Sequence[ChatMessage]]], store: FrameReader, out: Path, form: Format
) -> int:
    """Write ``data.jsonl`` and its frames, and for LLaMA-Factory ``dataset_info.json``; returns the rows.

    Args:
        talks: what each is called in an error, and its messages.
        store: where frames come from.
        out: folder.
        form: whose format.
    """
    files = FrameFiles(out / "frames", store)
    count = 0
    with whole_file(out / "data.jsonl") as file:
        for name, messages in talks:
            line = json.dumps(row(name, messages, files, form), ensure_ascii=False) + "\n"
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
    parser.add_argument("records", type=Path, help="file or folder of records, or a file of traces")
    parser.add_argument(
        "--checkpoint", help="checkpoint whose tokenizer made the records (default: none, for traces)"
    )
    parser.add_argument("--format", choices=get_args(Format), required=True, help="whose chat format")
    parser.add_argument("--out", type=Path, required=True, help="folder for data and frames")
    parser.add_argument("--video-root", help="folder below which the videos lie (default: none)")
    arguments = parser.parse_args()
    with told_in_a_line(parser.prog):
        count = _export(arguments)
    sys.stdout.write(f"{count} episodes are in {arguments.out}\n")


def _export(arguments: argparse.Namespace) -> int:
    """Export what the command names; returns how many episodes there are."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    store, form = FrameStore(video_root=arguments.video_root), arguments.format
    if arguments.checkpoint is None:
        if next(iter(TraceFiles(arguments.records)), None) is None:
            raise ValueError(f"{arguments.records} holds no episode")
        traces = tqdm(TraceFiles(arguments.records), "episodes")
        count, left = export_traces(traces, store, arguments.out, form)
        if left:
            sys.stdout.write(f"{left} with a look that missed are left out\n")
        return count
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{arguments.checkpoint} has no tokenizer that can be loaded: {error}") from error
    records = tqdm(read_records(arguments.records, tokenizer=fingerprint(tokenizer)), "episodes")
    return export(records, tokenizer, store, arguments.out, form)


if __name__ == "__main__":
    main()
