"""Recipes: frozen, hashable descriptions of an episode, each with its source.

A recipe holds the rules (sampling and limits), the grammar a text policy speaks, and the reward
terms. The two papers appear as the paper says and as the published code does, because they differ.
What a paper leaves open is chosen here, named in ``choices`` and part of the recipe's identity.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

from videogym.grammars import Grammar, Prompt, check_prompt, get_grammar, load_prompt, prompted
from videogym.rewards import (
    AnswerTerm,
    CropOverlap,
    FrameGain,
    Term,
    TranscriptScore,
    WellFormedTurn,
    coverage_gain,
    judge_letter,
    term_names,
    well_formed_episode,
)
from videogym.state import Rules, action_kinds


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
        if len(set(names)) != len(names) or "gate" in names:
            raise ValueError(f"recipe {self.name!r}: term names must be unique and not 'gate', got {names}")

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
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "prompt"}
        if self.prompt is not None:  # without one, the identity is what it was before there were prompts
            plain["prompt"] = self.prompt.texts
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
    # Lambdas and local functions share their names; where they are written tells them apart.
    return f"{name}:{value.__code__.co_firstlineno}" if "<" in name and hasattr(value, "__code__") else name


_VIDEO_MTR_RULES = Rules(
    actions=("select", "answer"),
    max_turns=3,
    skim_frames=16,
    clip_frames=8,
    pool_frames=128,
    frame_budget=32,
    # 128 patches of 28x28, and the 5 % of tolerance that the code's resizing has.
    min_pixels=128 * 28 * 28,
    max_pixels=128 * 28 * 28 * 105 // 100,
)
_VIDEO_MTR_CHOICES = (
    ("drop_penalty", "0.5 times the drop below the best IoU so far; the paper gives no coefficient"),
    ("tie", "an IoU equal to the best so far pays nothing; the paper gives no rule"),
    ("no answer", "settled as a wrong answer"),
    ("relevant frames", "pool frames whose timestamp lies in an evidence segment"),
)

VIDEO_MTR = Recipe(
    name="VIDEO_MTR/paper",
    source="Video-MTR, arXiv 2508.20478v2",
    rules=_VIDEO_MTR_RULES,
    grammar="video_mtr/strict",
    terms=(
        Term("format", "turn", WellFormedTurn(), weight=0.1, gated="before_last"),
        Term("frame_gain", "turn", FrameGain(baseline="best", drop_penalty=0.5), gated="all"),
        Term("answer", "trajectory", AnswerTerm(judge=judge_letter)),
    ),
    choices=(
        *_VIDEO_MTR_CHOICES,
        ("frame size", "100,352 pixels, as the code evaluates; it trains at 25,088, the paper gives none"),
    ),
)

VIDEO_MTR_CODE = Recipe(
    name="VIDEO_MTR/code",
    source="Video-MTR, published code b7d1234",
    rules=replace(_VIDEO_MTR_RULES, pool_frames=64, frame_budget=None),
    grammar="video_mtr/code",
    terms=(
        Term("format", "turn", WellFormedTurn(valid_only=True), weight=0.1),
        Term("frame_gain", "turn", FrameGain(baseline="previous", margin=0.001, drop_penalty=0.0)),
        Term("answer", "trajectory", AnswerTerm(judge=judge_letter, decay=0.1, open_scored=False)),
    ),
    choices=(
        ("gate", "not in the environment: the code shapes whole batches, see agents"),
        ("relevant frames", "pool frames whose timestamp lies in an evidence segment"),
        ("frame size", "100,352 pixels, as the code evaluates; it trains at 25,088"),
    ),
)


def video_mtr(budget: int, *, split: str = "paper", code: bool = False) -> Recipe:
    """Video-MTR at one of its frame budgets.

    Args:
        budget: frames an episode may show: 32, 64 or 80.
        split: for 80 frames, ``"paper"`` shows 40 first and 20 a look, ``"code"`` 48 and 16.
        code: start from the recipe of the published code instead of the paper's.

    Raises:
        ValueError: the paper has no such budget or split.
    """
    base = VIDEO_MTR_CODE if code else VIDEO_MTR
    table = {
        (32, "paper"): (16, 8),
        (64, "paper"): (32, 16),
        (80, "paper"): (40, 20),
        (80, "code"): (48, 16),
    }
    if (budget, split) not in table:
        raise ValueError(f"budget and split must be one of {sorted(table)}, got {(budget, split)}")
    skim, clip = table[budget, split]
    limit = None if code else budget
    rules = replace(base.rules, skim_frames=skim, clip_frames=clip, frame_budget=limit)
    return replace(base, name=f"{base.name}-{budget}-{split}", rules=rules)


_LONGVT_RULES = Rules(
    actions=("crop", "answer"),
    max_turns=5,
    skim_frames=512,
    skim_fps=1.0,
    clip_frames=128,
    crop_fps=1.0,
    max_calls=5,
    last_turn_look="skip",
    answers="any",
)

LONGVT = Recipe(
    name="LONGVT/paper",
    source="LongVT, arXiv 2511.20785v3",
    rules=_LONGVT_RULES,
    grammar="longvt/strict",
    terms=(
        Term("answer", "trajectory", AnswerTerm()),
        Term("format", "trajectory", well_formed_episode),
        Term("time", "trajectory", CropOverlap("iou")),
    ),
    choices=(
        ("limits", "5 turns and 5 calls as in the code; the paper gives none"),
        ("scored crop", "the last executed one; the paper does not say which"),
        ("malformed call", "the turn is spent and the policy is told why; the paper gives no rule"),
        ("judge", "exact match of letter, option or text in place of a language model"),
    ),
)

LONGVT_CODE = Recipe(
    name="LONGVT/code",
    source="LongVT, published code 08d755b9",
    rules=replace(_LONGVT_RULES, malformed="end", max_calls_per_turn=5),
    grammar="longvt/code",
    terms=(
        Term("answer", "trajectory", TranscriptScore("answer")),
        Term("format", "trajectory", TranscriptScore("format")),
        Term("time", "trajectory", TranscriptScore("time", "iou")),
    ),
    choices=(("judge", "exact match of letter, option or text in place of a language model"),),
)


def longvt(skim_frames: int, *, code: bool = False) -> Recipe:
    """LongVT with another cap on the skim: 64, 512 or 768 frames.

    Raises:
        ValueError: LongVT has no such cap.
    """
    if skim_frames not in (64, 512, 768):
        raise ValueError(f"skim_frames must be 64, 512 or 768, got {skim_frames}")
    base = LONGVT_CODE if code else LONGVT
    return replace(
        base, name=f"{base.name}-{skim_frames}", rules=replace(base.rules, skim_frames=skim_frames)
    )


LONGVT_TINY = replace(
    LONGVT,
    name="LONGVT_TINY",
    source="LONGVT/paper scaled down for small models on a CPU",
    rules=replace(_LONGVT_RULES, skim_frames=64, clip_frames=16, max_pixels=56 * 56),
)

VIDEO_MTR_TINY = replace(
    VIDEO_MTR,
    name="VIDEO_MTR_TINY",
    source="VIDEO_MTR/paper scaled down for small models on a CPU",
    rules=replace(_VIDEO_MTR_RULES, min_pixels=28 * 28, max_pixels=56 * 56),
    choices=_VIDEO_MTR_CHOICES,
)

DEFAULT = Recipe(
    name="DEFAULT",
    source="videogym",
    rules=Rules(
        actions=("crop", "answer"),
        max_turns=6,
        skim_frames=32,
        clip_frames=16,
        crop_fps=2.0,
        frame_budget=96,
        regions=True,
        timestamps="seconds",
        crop_past_end="clamp",
    ),
    grammar="native",
    terms=(
        Term("coverage", "turn", coverage_gain, weight=0.5, gated="all"),
        Term("answer", "trajectory", AnswerTerm()),
    ),
    choices=(
        ("coverage", "mean best IoU per evidence segment; the skim counts as a look at the whole video"),
        ("format", "not paid: an unreadable output already costs a turn"),
        ("skim", "even in time; by frame number, which is the same, where the frame rate is constant"),
    ),
)

_NAMED = {
    **{
        recipe.name: recipe
        for recipe in (
            *(VIDEO_MTR, VIDEO_MTR_CODE, VIDEO_MTR_TINY),
            *(LONGVT, LONGVT_CODE, LONGVT_TINY, DEFAULT),
        )
    },
    **{
        recipe.name: recipe
        for code in (False, True)
        for recipe in (
            *(video_mtr(budget, code=code) for budget in (32, 64, 80)),
            video_mtr(80, split="code", code=code),
            *(longvt(cap, code=code) for cap in (64, 512, 768)),
        )
    },
}


def get_recipe(name: str) -> Recipe:
    """The named recipe.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name not in _NAMED:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(sorted(_NAMED))}")
    return _NAMED[name]
