"""Published conversations as examples: what an assistant said is said again in the environment here.

The rows are LongVT's for fine-tuning (`videogym.datasets.read_longvt_traces`). Each output is played as it
stands, but for the video's path in its calls, which is what the prompt here names; the frames that answer
it are those of the configured recipe. A conversation that does not go through from its first output to its
answer would teach outputs that were never answered so: it is left out and counted. Models and losses are
not known here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from videogym.datasets import Conversation
from videogym.grammars.longvt import video_name

from ..demonstrations.evidence import ScriptedTurn
from .env import ChatEnv
from .records import Record
from .rollouts import play_scripted_turn

_PATH = re.compile(r'("video_path"\s*:\s*)"(?:[^"\\]|\\.)*"')
_CALL = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)


def replay(env: ChatEnv, traces: Iterable[Conversation], counts: Counter[str]) -> Iterator[Record]:
    """Conversations that go through, as demonstrations.

    Args:
        env: has the traces' tasks, under their ids.
        traces: what was said.
        counts: of all traces by what became of them, counted up: ``"kept"``, ``"not played"`` (its video
            cannot be shown, or the question leaves no room), ``"cut"`` (the context is full),
            ``"refused: CODE"`` (by the recipe), ``"ended early"`` (outputs are left), ``"not ended"``
            (more would have to be said).
    """
    for trace in traces:
        found = replayed(env, trace)
        counts[found if isinstance(found, str) else "kept"] += 1
        if not isinstance(found, str):
            yield found


class Replayed:
    """Conversations that are played when they are asked for, see `agents.vlm.lessons.Pool`.

    Args:
        env: has the traces' tasks, under their ids.
        traces: what was said.
    """

    def __init__(self, env: ChatEnv, traces: Sequence[Conversation]) -> None:
        self._env, self._traces = env, traces

    def __len__(self) -> int:
        return len(self._traces)

    def at(self, index: int) -> list[Record] | str:
        """See `agents.vlm.lessons.Pool`."""
        found = replayed(self._env, self._traces[index])
        return found if isinstance(found, str) else [found]


def replayed(env: ChatEnv, trace: Conversation) -> Record | str:
    """A conversation as a demonstration, or what became of it, see `replay`."""
    record = replace(env.open_task(trace.task.task_id), kind="demonstration")
    if record.abort_reason:
        return "not played"
    name = video_name(env.env.state.task)  # the file that was found may be called otherwise
    for output in trace.outputs:
        if record.done or any(turn.error for turn in record.played):
            break
        record = play_scripted_turn(env, record, ScriptedTurn(with_path(output, name), trainable=True))
    fate = _fate(record, len(trace.outputs))
    return record if fate == "kept" else fate


def with_path(output: str, name: str) -> str:
    """An output whose calls name a video so; all else stays as it was said."""
    return _CALL.sub(lambda call: _PATH.sub(lambda path: path[1] + json.dumps(name), call[0]), output)


def _fate(record: Record, outputs: int) -> str:
    refused = next((turn.error for turn in record.played if turn.error), "")
    if record.abort_reason:
        return "cut"
    if refused:
        return f"refused: {refused}"
    if len(record.played) < outputs:
        return "ended early"
    return "kept" if record.ending else "not ended"
