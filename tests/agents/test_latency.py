"""The table of what answers take on several benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.experiments import latency

TASKS = "procedural:brief_event?level=0&duration_s=60&size=64x36&count=2&split={}"


def test_one_command_measures_every_benchmark(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Parts of every line add up to its seconds, and the seconds of all questions to the wall time."""
    sources = [TASKS.format("test"), TASKS.format("val")]
    usual = ("--checkpoint", str(checkpoints["qwen2_5_vl"]), "--recipe", "LONGVT_TINY")
    out = ("--max-new-tokens", "6", "--out", str(tmp_path / "latency.json"))
    monkeypatch.setattr("sys.argv", ["latency", *usual, *out, "--tasks", *sources])
    latency.main()
    head, *lines, note = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["tasks", "questions", "wall"] and note.startswith("Seconds;")
    assert [line.split()[:2] for line in lines] == [[source, "2"] for source in sources]
    for row in json.loads((tmp_path / "latency.json").read_text()):
        cost = {name: one["mean"] for name, one in row["cost"].items()}
        parts = cost["decoding_s"] + cost["model_s"] + cost["environment_s"]
        assert parts == pytest.approx(cost["seconds"])
        assert 0 < cost["seconds"] * 2 <= row["wall_s"]  # nothing is counted twice
        assert cost["tokens_out"] > 0 and cost["tokens_in"] > cost["tokens_out"]

    monkeypatch.setattr("sys.argv", ["latency", *usual, "--tasks", "nowhere.jsonl"])
    with pytest.raises(SystemExit) as ended:
        latency.main()
    assert ended.value.code == 2 and "nowhere.jsonl" in capsys.readouterr().err.splitlines()[-1]
