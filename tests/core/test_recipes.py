"""Recipes are values with a name that changes whenever they do."""

# ruff: noqa: D103

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from functools import partial

import pytest

from videogym.recipes import DEFAULT, LONGVT, VIDEO_MTR, get_recipe, longvt, video_mtr
from videogym.rewards import AnswerTerm, Term
from videogym.state import Rules

NAMED = [
    "VIDEO_MTR/paper", "VIDEO_MTR/code", "LONGVT/paper", "LONGVT/code", "LONGVT_TINY", "DEFAULT", "FIND",
    "VIDEO_ZOOMER/paper", "VIDEO_ZOOMER/code", "PARAVT/paper", "PARAVT/code", "EVA/code",
    *(f"VIDEO_MTR/{side}-{budget}" for side in ("paper", "code")
      for budget in ("32-paper", "64-paper", "80-paper", "80-code")),
    *(f"LONGVT/{side}-{cap}" for side in ("paper", "code") for cap in (64, 512, 768)),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_named_recipes_are_hashable_and_describe_themselves_in_json(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert hash(recipe) == hash(replace(recipe))
    assert json.loads(json.dumps(recipe.describe()))["rules"]["skim_frames"] == recipe.rules.skim_frames
    assert str(recipe) == recipe.identity and recipe.identity.startswith(f"{name}@")


def test_identities_are_distinct_and_the_same_in_another_process():
    here = {name: get_recipe(name).identity for name in NAMED}
    assert len(set(here.values())) == len(NAMED)
    program = "import json, sys; from videogym.recipes import get_recipe as g; "
    program += "print(json.dumps({n: g(n).identity for n in sys.argv[1:]}))"
    there = subprocess.run(
        [sys.executable, "-c", program, *NAMED], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(there.stdout) == here


@pytest.mark.parametrize(
    "name",
    ["accuracy", "turns", "looks", "tokens", "loss_critic", "eval_look", "tiou_turn_12", "seconds_x"],
)
def test_no_term_has_the_name_of_a_metric(name):
    """Both are curves of one run and rows of one table: one would stand in the other's place."""
    said = rf"recipe 'MINE': no term can be named {name}: .*accuracy, .*tokens"
    with pytest.raises(ValueError, match=said):
        replace(DEFAULT, name="MINE", terms=(*DEFAULT.terms, Term(name, "turn", AnswerTerm())))
    for near in (f"my_{name}", "token", "look", "time", "lossless"):
        replace(DEFAULT, name="MINE", terms=(*DEFAULT.terms, Term(near, "turn", AnswerTerm())))


def test_a_recipe_is_frozen():
    with pytest.raises(FrozenInstanceError):
        DEFAULT.name = "other"  # type: ignore[misc]


OTHER_RULES = {
    "actions": ("answer", "crop"), "max_turns": 7, "skim_frames": 31, "clip_frames": 15, "pool_frames": 3,
    "pool_fps": 2.0, "skim_fps": 1.0, "crop_fps": 3.0, "frame_budget": 97, "max_calls": 9,
    "max_calls_per_turn": 2, "max_duration_s": 1.0, "crop_past_end": "refuse", "malformed": "end",
    "last_turn_look": "skip", "regions": False, "min_pixels": 1, "max_pixels": 2, "size_factor": 14,
    "timestamps": "none", "answers": "any", "max_answer_chars": 9, "max_text_chars": 9,
    "crop_arguments": ("fps",), "max_fps": 29.0, "max_scale": 2.0, "max_scaled_pixels": 9,
    "crop_sampling": "nearest", "crop_range": "clamp", "turn_frames": 9, "look_tokens": 9, "turn_tokens": 9,
    "token_budget": 9, "over_bound": "shrink", "tell_bound": True, "budget_reached": "end",
    "min_skim_frames": 4, "skim_sampling": "counted", "frame_resize": "truncated",
}  # fmt: skip


def test_every_rule_is_part_of_the_identity():
    assert set(OTHER_RULES) == {f.name for f in fields(Rules)}
    identities = {
        replace(DEFAULT, rules=replace(DEFAULT.rules, **{name: value})).identity
        for name, value in OTHER_RULES.items()
    }
    assert len(identities | {DEFAULT.identity}) == len(OTHER_RULES) + 1


def test_rules_that_came_later_left_the_named_recipes_as_they_were():
    # Written down before `crop_arguments` and what follows it were there.
    known = {
        "VIDEO_MTR/paper": "fa5ffb44f090",
        "VIDEO_MTR/code": "578630ed582c",
        "VIDEO_MTR_TINY": "e5b5a67a0f9a",
        "LONGVT/paper": "72f2bef79695",
        "LONGVT/code": "382578cc63e7",
        "LONGVT_TINY": "294465a28d79",
        "DEFAULT": "77fb082ef7e8",
        "VIDEO_MTR/paper-32-paper": "f6b163ea129e",
        "VIDEO_MTR/paper-64-paper": "67bcb0bbee66",
        "VIDEO_MTR/paper-80-paper": "c50b22bf0ac6",
        "VIDEO_MTR/paper-80-code": "c3926bafcce3",
        "LONGVT/paper-64": "1bee1be0a27c",
        "LONGVT/paper-512": "95dacc6d9adc",
        "LONGVT/paper-768": "0df5dc7ff114",
        "VIDEO_MTR/code-32-paper": "6fa0ad78644f",
        "VIDEO_MTR/code-64-paper": "be6fabe4c097",
        "VIDEO_MTR/code-80-paper": "ed0eee289b30",
        "VIDEO_MTR/code-80-code": "cf944f608ff7",
        "LONGVT/code-64": "24a4ad159de5",
        "LONGVT/code-512": "ac18a4563744",
        "LONGVT/code-768": "eea4f196ac67",
    }
    assert {name: get_recipe(name).identity.split("@")[1] for name in known} == known


def test_every_other_field_is_part_of_the_identity():
    answer = DEFAULT.terms[1]
    others = [
        replace(DEFAULT, name="other"),
        replace(DEFAULT, source="other"),
        replace(DEFAULT, grammar="longvt/strict"),
        replace(DEFAULT, choices=()),
        replace(DEFAULT, terms=DEFAULT.terms[:1]),
        replace(DEFAULT, terms=(DEFAULT.terms[0], replace(answer, weight=2.0))),
        replace(DEFAULT, terms=(DEFAULT.terms[0], replace(answer, gated="all"))),
        replace(DEFAULT, terms=(DEFAULT.terms[0], replace(answer, function=AnswerTerm(decay=0.1)))),
        replace(DEFAULT, terms=(DEFAULT.terms[0], replace(answer, function=own_term))),
    ]
    hashes = {recipe.identity.split("@")[1] for recipe in [DEFAULT, *others]}
    assert len(hashes) == len(others) + 1


def own_term(before, after):
    """A user's term."""
    return 0.0


@dataclass(frozen=True)
class OwnTerm:
    """A user's term with a parameter."""

    scale: float = 1.0

    def __call__(self, before, after):
        """Nothing."""
        return 0.0


def test_a_users_terms_are_told_apart_by_name_and_parameters():
    identities = {
        replace(DEFAULT, terms=(Term("own", "turn", function),)).identity
        for function in (own_term, OwnTerm(), OwnTerm(2.0))
    }
    assert len(identities) == 3


def test_lambdas_are_told_apart_by_where_they_are_written():
    first = replace(DEFAULT, terms=(Term("own", "turn", lambda before, after: 0.0),))
    second = replace(DEFAULT, terms=(Term("own", "turn", lambda before, after: 1.0),))
    assert first.identity != second.identity


def test_a_function_without_a_name_is_refused():
    with pytest.raises(ValueError, match="has no name"):
        _ = replace(DEFAULT, terms=(Term("own", "turn", partial(own_term, None)),)).identity


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="unique"):
        replace(DEFAULT, terms=(*DEFAULT.terms, DEFAULT.terms[0]))
    with pytest.raises(ValueError, match="'gate'"):
        replace(DEFAULT, terms=(Term("gate", "turn", own_term),))


def test_open_choices_are_named():
    assert dict(VIDEO_MTR.choices).keys() >= {"drop_penalty", "tie", "no answer"}
    assert dict(LONGVT.choices).keys() >= {"limits", "scored crop", "judge"}
    assert VIDEO_MTR.describe()["choices"]


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'NOPE'.*VIDEO_MTR/paper"):
        get_recipe("NOPE")
    with pytest.raises(ValueError, match="64, 512 or 768, got 100"):
        longvt(100)
    assert video_mtr(80, split="code", code=True).rules.frame_budget is None
