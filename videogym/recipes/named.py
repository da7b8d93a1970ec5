"""The named recipes of Video-MTR and LongVT, our own, and all names there are."""

from __future__ import annotations

from dataclasses import replace

from videogym.recipes.eva import EVA_CODE
from videogym.recipes.paravt import PARAVT, PARAVT_CODE
from videogym.recipes.recipe import Recipe
from videogym.recipes.video_zoomer import VIDEO_ZOOMER, VIDEO_ZOOMER_CODE
from videogym.rewards import (
    AnswerTerm,
    CropOverlap,
    FrameGain,
    Term,
    TranscriptScore,
    WellFormedTurn,
    coverage_gain,
    judge_letter,
    well_formed_episode,
)
from videogym.rules import Rules
from videogym.search import ProceduralIndex

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

FIND = replace(
    DEFAULT,
    name="FIND",
    rules=replace(DEFAULT.rules, actions=("find", "crop", "answer")),
    choices=(
        *DEFAULT.choices,
        ("find", "one frame a moment; it names no segment, so it earns and costs no coverage"),
        ("index", "exact, of procedural videos; for others `replace(FIND, search=...)`"),
    ),
    search=ProceduralIndex(),
)

_NAMED = {
    **{
        recipe.name: recipe
        for recipe in (
            *(VIDEO_MTR, VIDEO_MTR_CODE, VIDEO_MTR_TINY),
            *(LONGVT, LONGVT_CODE, LONGVT_TINY, DEFAULT, FIND),
            *(VIDEO_ZOOMER, VIDEO_ZOOMER_CODE, PARAVT, PARAVT_CODE, EVA_CODE),
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


def recipe_names() -> tuple[str, ...]:
    """All names that `get_recipe` knows."""
    return tuple(_NAMED)
