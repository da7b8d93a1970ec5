"""The judge that a command names: rules, an endpoint, a cache; and an endpoint that is down."""

# ruff: noqa: D103

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_server import chat_server, says

from videogym import Task, get_recipe
from videogym.cli import main
from videogym.datasets import write_tasks
from videogym.judging import JudgementLogError, judge_lenient, judge_named, with_judge

VIDEO = "synthetic:brief_event?level=0&duration_s=60&seed=1&size=64x36"
DEAD = "http://127.0.0.1:9/v1"  # nobody listens at the port of discard
OPEN = Task("open", VIDEO, "What is waved?", "open", answer="a red flag")
MANY = Task("many", VIDEO, "How many?", "numeric", answer="12")
ONE = Task("one", VIDEO, "Which?", "choice", ("w", "x"), "B")


def test_rules_by_name() -> None:
    assert judge_named("lenient") is judge_lenient
    rules = judge_named("rules")
    assert [rules(OPEN, "The red flag!"), rules(OPEN, "a flag"), rules(OPEN, "a kite")] == [1.0, 0.5, 0.0]
    assert [rules(MANY, "about 12 people"), rules(MANY, "11 or 12")] == [1.0, 0.0]
    assert [rules(ONE, "b"), rules(ONE, "w")] == [1.0, 0.0]
    letter = judge_named("letter")
    assert [letter(ONE, "B"), letter(ONE, "b")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        (
            "rule",
            {},
            "a judge is one of lenient, letter, rules, cache, or the URL of an endpoint; got 'rule'",
        ),
        ("rules", {"model": "m"}, "the judge 'rules' has no model, got 'm'"),
        (DEAD, {}, "needs the name of its model"),
        ("cache", {}, "the judge 'cache' needs the name of its model"),
        (DEAD, {"model": "m", "deadline_s": 0.0}, "deadline_s must be positive and finite, got 0.0"),
        ("cache", {"model": "m", "cache": "nowhere.jsonl"}, "the log must exist"),
    ],
)
def test_what_is_no_judge_is_told(
    name: str, options: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"judge|log|deadline") as caught:
        judge_named(name, **options)  # type: ignore[arg-type]
    assert told in str(caught.value)


@pytest.mark.parametrize("name", [DEAD, "cache"])
@pytest.mark.parametrize("content", [b'{"task_id": "a", "question": "?"}\n', b"my notes", b"\x00\xff" * 99])
def test_a_cache_that_is_none_of_judgements_is_refused_at_once(
    name: str, content: bytes, tmp_path: Path
) -> None:
    """Not when the first answer is judged, hours later."""
    (cache := tmp_path / "tasks.jsonl").write_bytes(content)
    with pytest.raises(JudgementLogError, match=r"tasks\.jsonl"):
        judge_named(name, model="m", cache=str(cache))
    assert cache.read_bytes() == content


def test_a_cache_is_the_judge_that_filled_it(tmp_path: Path) -> None:
    """The same recipe to its identity, and nobody is asked."""
    cache = str(tmp_path / "judgements.jsonl")
    with chat_server(says("Judgement: 1")) as server:
        asked = judge_named(server.url, model="m", cache=cache)
        assert asked(OPEN, "a banner") == 1.0
    replayed = judge_named("cache", model="m", cache=cache)
    assert replayed(OPEN, "a banner") == 1.0 and replayed(OPEN, "a kite") is None
    recipe = get_recipe("DEFAULT")
    assert with_judge(recipe, asked).identity == with_judge(recipe, replayed).identity != recipe.identity


def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """``videogym eval`` of a policy that says of each task what its id tells."""
    (tmp_path / "mine.py").write_text(
        "from videogym import Answer\n"
        "def act(observation, info):\n"
        "    return Answer({'open': 'the banner', 'many': '12.0', 'one': 'B'}[info['task_id']])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_tasks(tmp_path / "t.jsonl", [OPEN, MANY, ONE])
    return main(["eval", "mine:act", "--tasks", "t.jsonl", *options])


def test_an_endpoint_that_is_down_abstains_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the choice nobody need be asked; the others are out of accuracy, not wrong."""
    where = ("--judge", DEAD, "--judge-model", "m", "--judge-deadline-s", "0.2", "--judge-cache", "c.jsonl")
    assert evaluated(tmp_path, monkeypatch, *where, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracy"]["mean"] == 1.0 and result["accuracy"]["count"] == 1
    assert result["abstained"] == 2 and len((tmp_path / "c.jsonl").read_text().splitlines()) == 2
    assert {row["task_id"]: row["correct"] for row in result["played"]} == {
        "open": None, "many": None, "one": True
    }  # fmt: skip
    # The next run asks again, and is judged.
    with chat_server(says("Judgement: 0"), says("Judgement: 1")) as server:
        again = ("--judge", server.url, "--judge-model", "m", "--judge-cache", "c.jsonl", "--json")
        assert evaluated(tmp_path, monkeypatch, *again) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["abstained"] == 0 and judged["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert judged["recipe"] == result["recipe"]  # whatever the address


def test_eval_takes_rules_and_refuses_what_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(tmp_path, monkeypatch, "--judge", "rules", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert evaluated(tmp_path, monkeypatch, "--judge", "strict") == 2
    assert "a judge is one of" in capsys.readouterr().err.splitlines()[-1]
