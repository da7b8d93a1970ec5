"""Find: moments of the whole video that fit a text, one frame each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from videogym.actions.arguments import as_number, as_text, count_argument, judge_count
from videogym.actions.bounds import LookRequest, bounded, note_of
from videogym.actions.look import Showing
from videogym.rules import LATER
from videogym.spaces import UnicodeText, is_encodable
from videogym.state import Action, Clip, Invalid, Rules, Search, State, Turn

MAX_QUERY_CHARS = 256
DEFAULT_K = 4  # moments where a query says none
_SHOWN_CHARS = 80  # of a query, to a person


@dataclass(frozen=True, slots=True)
class Find(Showing):
    """Show the moments that fit a text best, a frame each, in order of time.

    The recipe's search index says which these are (`Recipe.search`). It searches the whole video, so a
    find names no segment, and terms that pay for segments pay nothing for it.
    """

    kind: ClassVar[str] = "find"
    purpose: ClassVar[str] = (
        "Search the whole video for a text: show frames of the moments that fit it best."
    )
    optional: ClassVar[frozenset[str]] = frozenset({"k"})
    searches: ClassVar[bool] = True

    query: str
    k: float | None = None  # how many moments; None: `DEFAULT_K`
    # What the index found, seconds, the best first; filled in when it is played. No part of what was asked.
    found_s: tuple[float, ...] | None = field(default=None, compare=False, metadata=LATER)

    def __post_init__(self) -> None:
        object.__setattr__(self, "query", as_text(self.query))
        if self.k is not None:
            object.__setattr__(self, "k", as_number(self.k))

    def judge(self, state: State) -> Invalid | None:
        """What is wrong with the query; None: nothing."""
        query = self.query
        if not isinstance(query, str) or not is_encodable(query):
            return Invalid("type", "query must be a text without half characters.")
        if not query.strip():
            return Invalid("query", "Say what to search for: the query is empty.")
        if len(query) > MAX_QUERY_CHARS:
            reason = f"A query has at most {MAX_QUERY_CHARS} characters, this one has {len(query)}."
            return Invalid("query_length", reason)
        count = self._count(state.rules)
        return count if isinstance(count, Invalid) else None

    def _count(self, rules: Rules) -> int | Invalid:
        return min(DEFAULT_K, rules.clip_frames) if self.k is None else judge_count("k", self.k, rules)

    def located(self, rules: Rules, search: Search) -> Action:
        """See `Action.located`."""
        return replace(self, found_s=search(self.query, rules.clip_frames))

    def clip(self, state: State, turn: Turn, pts_s: NDArray[np.float64]) -> Clip | Invalid:
        """See `Action.clip`.

        Raises:
            ValueError: nobody has searched.
        """
        if self.found_s is None:
            raise ValueError(f"{self.label()} was not searched for: play it with a search index")
        count = self._count(state.rules)
        if isinstance(count, Invalid):
            return count
        asked = LookRequest(count, None, self.k is not None)
        shown = bounded(asked, None, state, turn)
        if isinstance(shown, Invalid):
            return shown
        if not self.found_s:
            return Invalid("no_frames", "The search found nothing in this video.")
        best = np.sort(self.found_s[: shown.count])
        times_s = pts_s[np.maximum(np.searchsorted(pts_s, best, side="right") - 1, 0)]
        note = note_of(asked, shown) if self.k is not None else ""
        return Clip(tuple(times_s.tolist()), None, shown.scale, note)

    def label(self) -> str:
        """The query, and how many moments."""
        query = self.query or ""
        words = f"“{query if len(query) <= _SHOWN_CHARS else query[: _SHOWN_CHARS - 1] + '…'}”"
        return words if self.k is None else f"{words}, {self.k} moments"

    def arguments(self) -> dict[str, Any]:
        """See `Action.arguments`."""
        return {"query": self.query} | ({} if self.k is None else {"k": self.k})

    @classmethod
    def parameters(cls, rules: Rules) -> dict[str, Any]:
        """See `Action.parameters`."""
        most = rules.clip_frames
        return {
            "query": {
                "type": "string",
                "maxLength": MAX_QUERY_CHARS,
                "description": "What is to be seen, in words",
            },
            "k": {
                "type": "integer",
                "minimum": 1,
                "description": f"How many moments, at most {most}. Left out: {min(DEFAULT_K, most)}",
            },
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], rules: Rules) -> Action:
        """See `Action.from_arguments`."""
        query = arguments["query"]
        if not isinstance(query, str):
            return Invalid("type", "query must be a string.")
        if "k" not in arguments:
            return cls(query)
        k = count_argument("k", arguments["k"])
        return k if isinstance(k, Invalid) else cls(query, k)

    @classmethod
    def spaces(cls, rules: Rules) -> dict[str, gymnasium.Space[Any]]:
        """``query``, and ``k``; 0: left out."""
        return {"query": UnicodeText(MAX_QUERY_CHARS), "k": Discrete(rules.clip_frames + 1)}

    @classmethod
    def from_structured(cls, values: Mapping[str, Any], state: State) -> Action:
        """See `Action.from_structured`."""
        return cls(str(values["query"]), int(values["k"]) or None)
