"""The recorded behaviour of the published systems, and that the runner would notice a difference."""

# ruff: noqa: D103

import copy
import json
from pathlib import Path

import pytest

from videogym.testing.conformance import check_file, main
from videogym.testing.replay import UnusableRow, check_row

GOLDEN = sorted((Path(__file__).parent / "golden" / "conformance").glob("*.jsonl"))
ROWS = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in GOLDEN}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_golden_row_passes(path):
    report = []
    tally = check_file(path, report.append)
    assert report == [f"{path.name}: {tally.passed} passed, 0 failed"]
    assert tally.passed == len(ROWS[path.stem]) > 0


def corrupt(row, *keys, value):
    """A copy of a row in which one recorded outcome is another."""
    other = copy.deepcopy(row)
    inner = other
    for key in keys[:-1]:
        inner = inner[key]
    assert inner[keys[-1]] != value
    inner[keys[-1]] = value
    return other


CORRUPTIONS = [
    ("longvt_crop_frames", ("idx", 1), 334, "idx"),
    ("longvt_skim_frames", ("n",), 62, "n: expected 62, got 64"),
    ("longvt_resize", ("out", 0), 56, "out"),
    ("longvt_parse", ("outcome",), "tool", "outcome"),
    ("longvt_parse", ("kept_text",), "", "kept_text"),
    ("longvt_tool_call", ("frames",), 12, "frames: expected 12, got 10"),
    ("longvt_tool_call", ("size", 0), 252, "size"),
    ("longvt_tool_call", ("error",), "order", "error: expected 'order', got None"),
    ("longvt_reward", ("iou", 3), 0.999, "iou"),
    ("longvt_reward", ("tool", 0), 2.0, "tool"),
    ("longvt_span_answer", ("out", 1), 0.61, "out"),
    ("video_mtr_env_probe", ("steps", 0, "reward"), 0.5, "step 1 reward"),
    ("video_mtr_env_probe", ("steps", 0, "obs_idxs", 7), 28, "step 1 obs_idxs"),
    ("video_mtr_env_probe", ("steps", 0, "iou"), 0.7, "step 1 iou"),
    ("video_mtr_env_probe", ("steps", 1, "success"), False, "step 2 success"),
    ("video_mtr_env_probe", ("steps", 1, "done"), False, "step 2 done"),
    ("video_mtr_env_probe", ("initial_obs_idxs", 15), 62, "initial_obs_idxs"),
    ("video_mtr_env_probe", ("total_reward",), 1.5, "total_reward"),
    ("video_mtr_parser_probe", ("expect", "action_content"), "C", "action_content"),
    ("video_mtr_parser_probe", ("expect", "error_message_empty"), False, "error_message_empty"),
]


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"), CORRUPTIONS, ids=lambda value: str(value)[:30]
)
def test_a_corrupted_row_is_reported(name, keys, value, message):
    mismatches = check_row(corrupt(ROWS[name][0], *keys, value=value))
    assert any(message in mismatch for mismatch in mismatches)


def run(tmp_path, *texts):
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_text(text, encoding="utf-8")
    return main([str(path) for path in paths])


GOOD = json.dumps(ROWS["longvt_resize"][0])
BAD = json.dumps({**ROWS["longvt_resize"][0], "out": [56, 28]})


def test_the_command_counts_and_exits_by_what_it_found(tmp_path, capsys):
    assert run(tmp_path, f"{GOOD}\n\n{GOOD}\n") == 0
    assert capsys.readouterr().out == "0.jsonl: 2 passed, 0 failed\n"
    assert run(tmp_path, f"{GOOD}\n{BAD}\n", GOOD) == 1
    out = capsys.readouterr().out
    assert "0.jsonl:2: out: expected [56, 28], got [28, 28]\n0.jsonl: 1 passed, 1 failed\n" in out
    assert out.endswith("1.jsonl: 1 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "gae_probe"}', "unknown kind 'gae_probe'"),
        ('{"no": "kind"}', "the row has no field 'kind'"),
        ('{"kind": "resize", "h": 1}', "the row has no field 'w'"),
        ("[1]", "a row is a JSON object, got list"),
        ("{broken", "not JSON"),
    ],
)
def test_unusable_input_is_an_error_and_never_skipped(tmp_path, capsys, line, message):
    assert run(tmp_path, f"{GOOD}\n{line}\n") == 2
    out = capsys.readouterr().out
    assert f"0.jsonl:2: error: {message}" in out
    assert "0.jsonl: 1 passed, 0 failed, 1 unusable" in out


def test_missing_files_and_no_files_are_unusable(tmp_path, capsys):
    assert main([str(tmp_path / "missing.jsonl")]) == 2
    assert "missing.jsonl: error:" in capsys.readouterr().out
    assert main([]) == 2
    assert main(["--help"]) == 0
    with pytest.raises(UnusableRow, match="problem_type"):
        check_row({**ROWS["video_mtr_parser_probe"][0], "problem_type": "essay"})


# Rows of the same kinds whose outcomes are known from the published rules, beyond those recorded.
TOOL_CALLS = [
    ("-5", "10", "start<0"),
    ("-5", "10", "negative"),
    ("180", "190", "start>=duration"),
    ("200", "210", "start >= duration"),
    ('"10"', "20", None),
    ("10", '"20"', None),
    ("abc", "20", "type"),
    ("Infinity", "20", "type"),
    ("{}", "20", "type"),
    ("10", "absent", "required"),
    ("170", "180.0001", "end>duration"),
    ("20", "10", "order"),
]


@pytest.mark.parametrize(("start", "end", "error"), TOOL_CALLS)
def test_other_calls_come_out_as_the_published_checks_say(start, end, error):
    row = {**ROWS["longvt_tool_call"][0], "start": start, "end": end, "error": error}
    if error is not None:
        row |= {"frames": None, "size": None}
    assert check_row(row) == []


def probe(responses, rewards, **changes):
    """An env_probe row in which only rewards are recorded by hand; the rest is taken from a run."""
    row = {**copy.deepcopy(ROWS["video_mtr_env_probe"][0]), **changes}
    steps = [
        {**row["steps"][0], "raw_response": r, "reward": p} for r, p in zip(responses, rewards, strict=True)
    ]
    return {**row, "steps": steps, "total_reward": sum(rewards)}


def rewards_differ(row):
    return [mismatch for mismatch in check_row(row) if "reward" in mismatch]


def test_probes_go_on_after_the_end_and_with_pools_of_odd_size():
    answer, look = "<think>t</think><answer>B</answer>", "<think>t</think><retrieve>20,27</retrieve>"
    # The reference keeps paying after an answer: 1.1, then 0.1 + 0.5, then 0.1 + 1 - 0.2.
    assert rewards_differ(probe([answer, look, answer], [1.1, 0.6, 0.9])) == []
    odd = probe([look], [0.6], pool_size=33, initial_obs_idxs=[i * 32 // 15 for i in range(16)])
    assert rewards_differ(odd) == []
    assert not any("initial" in mismatch for mismatch in check_row(odd))


def test_labels_of_different_conditions_are_never_taken_for_one_another():
    row = ROWS["longvt_tool_call"][1]
    for label in ("required", "path", "negative", "order", "file", "start>=duration", "end>duration"):
        assert check_row({**row, "error": label}) != []


def test_a_file_without_rows_is_no_pass(tmp_path, capsys):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    assert main([str(path)]) == 2
    assert "holds no rows" in capsys.readouterr().out
