"""A language model that is asked about frames and texts, each question once, and what its replies say.

A reply is stored before anyone sees it: whatever is killed afterwards, it is not paid again. Prompts ask
for one JSON object. What comes instead is `Dropped`: a refusal, a reply that was cut, or no such object.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image

from videogym.data.lines import Lines
from videogym.data.work import CallCost, Dropped, hashed
from videogym.datasets.caption_questions import Endpoint
from videogym.datasets.rows import parse_json
from videogym.judging import Reply
from videogym.video import FrameBatch

_QUALITY = 90  # of JPEG
_SHOWN = 100  # characters of a reply that are told
_REFUSAL = re.compile(
    r"\W*(?:i['’]?m (?:very |so )?sorry|i am (?:very |so )?sorry|sorry"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|will not)\b"
    r"|i['’]?m (?:not able|unable)|i am (?:not able|unable)|as an ai\b|unfortunately,? i\b)",
    re.IGNORECASE,
)

ContentPart = dict[str, Any]  # of a message's content


class Asker:
    """Asks an endpoint what no stored reply says. Threads may share one.

    Args:
        endpoint: who is asked; `videogym.judging.ChatEndpoint` is one.
        model: how it knows its model.
        replies: where replies are stored and looked up.
        max_tokens: of a reply.

    Attributes:
        model: how the endpoint knows its model.
        max_tokens: of a reply.
        cost: what was asked and how much of it was stored.
    """

    def __init__(self, endpoint: Endpoint, model: str, replies: Lines, max_tokens: int = 2048) -> None:
        self.model, self.max_tokens, self.cost = model, max_tokens, CallCost()
        self._endpoint, self._replies = endpoint, replies
        self._known = {row["key"]: _reply(row) for row in replies.rows}
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}  # by key: of two who ask the same, one waits

    def ask(self, step: str, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """The reply to a conversation, stored or new.

        Args:
            step: who asks; for whoever reads the file.
            messages: of a chat completion.

        Raises:
            NoReply: there is none.
            EndpointError: the endpoint cannot be used.
            OSError: the reply cannot be stored.
        """
        request = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0.0,
            "seed": 0,
            "max_tokens": self.max_tokens,
        }
        key = hashed(request)
        with self._lock:
            turn = self._asking.setdefault(key, threading.Lock())
        with turn:
            if (known := self._known.get(key)) is not None:
                with self._lock:
                    self.cost.stored += 1
                return known
            reply = self._endpoint.ask(request)
            row = {"key": key, "step": step, "request": _light(request), "reply": asdict(reply)}
            self._replies.append(row)
            with self._lock:
                self._known[key] = reply
                self.cost.add(row["reply"])
            return reply


def _reply(row: Mapping[str, Any]) -> Reply:
    return Reply(**row["reply"])


def _light(value: Any) -> Any:
    """A request with the hash of each picture in its place, so that a file of thousands can be read."""
    if isinstance(value, Mapping):
        return {name: _light(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_light(one) for one in value]
    if isinstance(value, str) and value.startswith("data:"):
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    return value


def text_part(text: str) -> ContentPart:
    """A text, as part of a message."""
    return {"type": "text", "text": text}


def image_part(pixels: Any) -> ContentPart:
    """A frame (H, W, 3) uint8, as part of a message."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def timed_images(batch: FrameBatch, times_s: Sequence[float]) -> list[ContentPart]:
    """Frames in order, each after its time."""
    return [
        part
        for time_s, pixels in zip(times_s, batch.pixels, strict=True)
        for part in (text_part(f"[{time_s:.2f} s]"), image_part(pixels))
    ]


def user(*parts: ContentPart) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": list(parts)}


def object_in(reply: Reply) -> dict[str, Any] | Dropped:
    """The JSON object of a reply, without fences of code or words around it."""
    if reply.refused:
        return Dropped("refusal", shown(reply.text))
    begin, end = reply.text.find("{"), reply.text.rfind("}")
    if begin < 0 and _REFUSAL.match(reply.text):
        return Dropped("refusal", shown(reply.text))
    if not reply.complete:
        return Dropped("cut", f"the reply stopped before its end: {shown(reply.text[-_SHOWN:])}")
    try:
        found = parse_json(reply.text[begin : end + 1] if begin >= 0 else "")
    except ValueError as error:
        return Dropped("malformed", f"no JSON object in {shown(reply.text)}: {error}")
    if not isinstance(found, dict):
        return Dropped("malformed", f"no JSON object in {shown(reply.text)}")
    return found


def text_in(found: Mapping[str, Any], name: str) -> str | Dropped:
    """A text of a reply's object, without white space around it."""
    value = found.get(name)
    if not isinstance(value, str) or not value.strip():
        return Dropped("malformed", f"field {name!r} must be a text, got {shown(value)}")
    return value.strip()


def shown(value: Any) -> str:
    """A value of somebody else, short and on one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
