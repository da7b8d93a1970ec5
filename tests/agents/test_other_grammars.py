"""The table of one policy in all grammars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.experiments import other_grammars
from videogym import get_recipe
from videogym.grammars import grammar_names
from videogym.traces import read_traces

TASKS = "procedural:brief_event?level=0&duration_s=60&size=64x36&count=2&split=test"


def test_there_is_a_recipe_for_every_grammar() -> None:
    """Each once, the policy's own first."""
    names = other_grammars.one_for_each_grammar("LONGVT_TINY")
    assert names[0] == "LONGVT_TINY"
    assert sorted(str(get_recipe(name).grammar) for name in names) == sorted(grammar_names())


def test_one_command_plays_the_same_tasks_in_several_grammars(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line for each; episodes lie in folders of their own, and none is of another recipe."""
    usual = ("--checkpoint", str(checkpoints["qwen2_5_vl"]), "--tasks", TASKS, "--max-new-tokens", "6")
    recipes = ("LONGVT_TINY", "VIDEO_MTR_TINY", "EVA/code")
    monkeypatch.setattr("sys.argv", ["x", *usual, "--out", str(tmp_path), "--recipes", *recipes])
    other_grammars.main()
    _, _, *lines, note = capsys.readouterr().out.splitlines()
    assert note.startswith("Of turns and looks") and len(lines) == 3
    rows = json.loads((tmp_path / "lines.json").read_text())
    for name, line, row in zip(recipes, lines, rows, strict=True):
        assert line.startswith(f"| `{name}` | `{get_recipe(name).grammar}` | 2 |")
        traces = read_traces(tmp_path / name).episodes
        assert [trace.recipe for trace in traces] == [get_recipe(name).identity] * 2
        assert row["recipe"] == name and row["metrics"]["turns"]["count"] == 2
    ids = {tuple(trace.task.task_id for trace in read_traces(tmp_path / name).episodes) for name in recipes}
    assert len(ids) == 1

    monkeypatch.setattr(
        "sys.argv", ["x", *usual, "--out", str(tmp_path / "no"), "--recipes", "LONGVT_TINY", "NO"]
    )
    with pytest.raises(SystemExit) as ended:
        other_grammars.main()
    assert ended.value.code == 2 and "unknown recipe 'NO'" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "no").exists(), "nothing is played before all names are known"
