"""What a recipe is: a frozen, hashable description of an episode with its source.

A recipe holds the rules (sampling and limits), the grammar a text policy speaks, and the reward
terms. The two papers appear as the paper says and as the published code does, because they differ.
What a paper leaves open is chosen here, named in ``choices`` and part of the recipe's identity.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

from videogym.grammars import Grammar, Prompt, check_prompt, get_grammar, load_prompt, prompted
from videogym.responding import CompletenessVerifier, Responder, describing
from videogym.rewards import Term, term_names
from videogym.search import FrameIndex, search_video
from videogym.state import Describe, Rules, Search, State, action_kinds
from videogym.video.store import FrameStore
from videogym.video.types import Video

# Metrics and curves that stand beside the terms, by their names, in evaluations and training runs.
METRICS = (
    *(
        "accuracy",
        "success",
        "hit_rate",
        "tiou",
        "tiou_turn_*",
        "reward",
        "trained_reward",
        "turns",
        "looks",
    ),
    *("frames", "tokens", "invalid_rate", "cut_rate", "fault_rate", "retrieval_rate", "repeat_rate"),
    *("bonus_rate", "groups", "groups_with_contrast", "batches", "loss", "loss_*", "grad_norm"),
    *("grad_norm_*", "entropy", "clip_fraction", "ess", "ESS", "kl_*", "explained_variance", "eval_*"),
    *("seconds_*", "turns_total"),
)
_METRIC = re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in METRICS))


# Names in identities that were given before: a recipe stays the one that it was.
_EARLIER = {
    "verifier": "second",
    "videogym.responding:CompletenessVerifier": "videogym.responding:SecondAnswer",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what an episode is, apart from its task.

    Two runs with the same ``identity`` played by the same rules for the same rewards.
    """

    name: str
    source: str  # where the recipe comes from
    rules: Rules
    grammar: str | Grammar  # a name for `videogym.grammars.get_grammar`, or a grammar of your own
    terms: tuple[Term, ...]
    choices: tuple[tuple[str, str], ...] = ()  # what the source leaves open, and what was chosen
    prompt: Prompt | None = None  # the words of conversations; None: the grammar's own
    search: FrameIndex | None = None  # who finds moments by a text, for kinds of action that search
    responder: Responder | None = None  # who answers looks by a text; None: their frames are shown
    verifier: CompletenessVerifier | None = None  # answers again from the retrieved frames; None: nobody

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        grammar = get_grammar(self.grammar)
        if self.prompt is not None:
            check_prompt(self.prompt, grammar, self.rules)
        for kind in self.rules.actions:
            if kind not in action_kinds():
                raise ValueError(
                    f"recipe {self.name!r}: unknown kind of action {kind!r}; known: "
                    f"{', '.join(action_kinds())}; import the module that defines yours"
                )
            if action_kinds()[kind].searches and self.search is None:
                raise ValueError(
                    f"recipe {self.name!r}: {kind} needs a search index, such as search=ProceduralIndex() "
                    "of videogym.search"
                )
        if self.responder is not None and not getattr(grammar, "shows_replies", False):
            raise ValueError(
                f"recipe {self.name!r}: the grammar {grammar.name} has no words for looks that a text "
                "answers; native and paravt have"
            )
        if len(set(names)) != len(names) or "gate" in names:
            raise ValueError(f"recipe {self.name!r}: term names must be unique and not 'gate', got {names}")
        if taken := [name for name in names if _METRIC.fullmatch(name)]:
            raise ValueError(
                f"recipe {self.name!r}: no term can be named {', '.join(taken)}: metrics and curves are "
                f"named {', '.join(METRICS)}"
            )

    @property
    def language(self) -> Grammar:
        """The grammar itself, in the words of the prompt where there is one."""
        return prompted(get_grammar(self.grammar), self.prompt)

    def with_prompt(self, prompt: Prompt | str | PathLike[str] | None) -> Recipe:
        """The recipe with the words of a prompt or of a prompt file; the name stays, the identity does not.

        Raises:
            PromptError: the file is no prompt, or it does not fit the recipe.
            OSError: the file cannot be read.
        """
        read = prompt if prompt is None or isinstance(prompt, Prompt) else load_prompt(prompt)
        return replace(self, prompt=read)

    def search_in(self, video: Video) -> Search | None:
        """Who finds moments of a video by a text; None without an index."""
        index = self.search
        return None if index is None else lambda query, most: search_video(index, video, query, most)

    def describe_in(self, store: FrameStore, state: State) -> Describe | None:
        """Who says what looks at this state show; None: their frames are shown."""
        return None if self.responder is None else describing(self.responder, store, state)

    def verified(self, store: FrameStore, state: State) -> State:
        """The state with the verifier's answer, where the episode ended with one and the recipe has one."""
        if self.verifier is None or state.ending != "answered":
            return state
        last = replace(state.turns[-1], verifier_answer=self.verifier.of(store, state))
        return replace(state, turns=(*state.turns[:-1], last))

    @property
    def term_names(self) -> tuple[str, ...]:
        """Keys of ``info["reward_terms"]``."""
        return term_names(self.terms)

    def describe(self) -> dict[str, Any]:
        """All fields as plain JSON values; functions and classes appear by their qualified name.

        A grammar of your own is its class and, if it is a dataclass, its fields.

        Raises:
            ValueError: a term's function has no name, such as a `functools.partial`.
        """
        later = ("prompt", "search", "responder", "verifier")
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in later}
        if self.prompt is not None:  # without one, the identity is what it was before there were any
            plain["prompt"] = self.prompt.texts
        for name in ("search", "responder", "verifier"):
            if (held := getattr(self, name)) is not None:
                plain[_EARLIER.get(name, name)] = _plain(held)
        if not isinstance(self.grammar, str) and not is_dataclass(self.grammar):
            plain["grammar"] = _name(type(self.grammar))
        return plain

    @cached_property
    def identity(self) -> str:
        """Name and a hash of `describe`, e.g. ``"LONGVT/paper@5f0c12ab34cd"``."""
        text = json.dumps(self.describe(), sort_keys=True)
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def __str__(self) -> str:
        return self.identity


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if not _is_later(value, f)}
        return plain if isinstance(value, Rules | Term) else {_name(type(value)): plain}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _name(value) if callable(value) else value


def _is_later(value: Any, one: Field[Any]) -> bool:
    """Whether a field came after recipes were named and changes nothing: their identities stay."""
    return bool(one.metadata.get("later")) and getattr(value, one.name) == one.default


def _name(value: Any) -> str:
    if not hasattr(value, "__qualname__"):
        raise ValueError(f"{value!r} has no name: use a function or a frozen dataclass with __call__")
    # A room names what is in it: a module of it may be split, and no experiment becomes another one.
    module = "videogym.rewards" if value.__module__.startswith("videogym.rewards.") else value.__module__
    name = f"{module}:{value.__qualname__}"
    name = _EARLIER.get(name, name)
    # Lambdas and local functions share their names; where they are written tells them apart.
    return f"{name}:{value.__code__.co_firstlineno}" if "<" in name and hasattr(value, "__code__") else name
