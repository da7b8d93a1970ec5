"""What lmms-eval's own task code makes of an oracle, of one who knows nothing, and of a tiny model."""

# ruff: noqa: D103

from __future__ import annotations

from pathlib import Path

import pytest
from running import TASKS, Run, run
from small_benchmarks import Benchmarks

from agents.benchmarks.questions import response
from agents.train_grpo_mllm import Config
from agents.vlm.tiny import tiny_checkpoint
from videogym.cli import main
from videogym.traces import Trace, read_traces

pytestmark = [pytest.mark.lmms_eval, pytest.mark.filterwarnings("ignore")]

HUNDRED = {  # tasks whose score is in per cent; those of the others is a share
    ("videomme", "videomme_perception_score"),
    ("mlvu_dev", "mlvu_percetion_score"),
    ("mlvu_test", "mlvu_percetion_score"),
}
SHARES = {
    ("egoschema_subset", "score"),
    ("lvbench", "lvbench_score"),
    ("longvideobench_val_v", "lvb_acc"),
    *((f"video_mmmu_{track}", "mmmu_acc") for track in ("adaptation", "comprehension", "perception")),
    *((task, "acc_score") for task in ("longvt", "longvt_reasoning", "longvt_non_think")),
}


def traces_by_name(run: Run) -> dict[str, Trace]:
    traces = list(read_traces(run.folder / "traces"))
    assert len({trace.task.task_id for trace in traces}) == len(traces)
    return {trace.task.task_id: trace for trace in traces}


@pytest.fixture(scope="module")
def oracle(benchmarks: Benchmarks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All benchmarks, played by a policy that writes the right answers after a look."""
    model = {"policy": "scripted:look_and_tell", "recipe": "LONGVT_TINY", "text": True}
    return run(tmp_path_factory.mktemp("oracle"), TASKS, model)


@pytest.fixture(scope="module")
def blind(benchmarks: Benchmarks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All benchmarks, played by a policy that always answers A."""
    return run(
        tmp_path_factory.mktemp("blind"), TASKS, {"policy": "scripted:always_a", "recipe": "DEFAULT"}
    )


def test_the_oracle_scores_a_hundred_everywhere(oracle: Run) -> None:
    # LongVT's format wants <think> and <answer>: only where the prompt asks for the latter is it sent.
    expected = dict.fromkeys(HUNDRED, 100.0) | dict.fromkeys(SHARES, 1.0)
    expected |= {("longvt", "format_score"): 1.0, ("longvt_reasoning", "format_score"): 1.0}
    expected |= {("longvt_non_think", "format_score"): 0.0}
    assert oracle.table == expected


def test_one_who_knows_nothing_scores_chance(blind: Run) -> None:
    # By construction: each option is right equally often in every group that is averaged over.
    assert blind.table[("videomme", "videomme_perception_score")] == 25
    assert blind.table[("mlvu_dev", "mlvu_percetion_score")] == 25
    assert blind.table[("mlvu_test", "mlvu_percetion_score")] == 25
    assert blind.table[("egoschema_subset", "score")] == 0.2
    assert blind.table[("lvbench", "lvbench_score")] == 0.25
    assert blind.table[("longvideobench_val_v", "lvb_acc")] == 0.25
    assert blind.table[("video_mmmu_comprehension", "mmmu_acc")] == 0.25
    assert blind.table[("video_mmmu_perception", "mmmu_acc")] == 0.1
    # Three of twelve choices, and an open question whose answer is no letter.
    assert blind.table[("video_mmmu_adaptation", "mmmu_acc")] == pytest.approx(3 / 13, abs=1e-4)
    for task in ("longvt", "longvt_reasoning", "longvt_non_think"):
        # "A" is in "a red kite" for our judge, in no other answer.
        assert blind.table[(task, "acc_score")] <= 0.25


@pytest.mark.parametrize("who", ["oracle", "blind"])
def test_every_document_has_a_trace_with_its_response(who: str, request: pytest.FixtureRequest) -> None:
    done: Run = request.getfixturevalue(who)
    traces, samples = traces_by_name(done), done.samples
    count = 12 + 28 + 36 + 10 + 8 + 13 + 12 + 30 + 8 + 3 * 4
    assert traces.keys() == samples.keys() and len(samples) == count
    for name, sample in samples.items():
        assert sample["filtered_resps"] == response(traces[name]), name
        prompt = sample["input"]
        assert prompt in traces[name].task.question, name  # the task's own words, whole
        assert len(traces[name].turns) == 2 and len(traces[name].clips) == 2, name
        assert all(len(clip.times_s) > 1 for clip in traces[name].clips), name


def test_ours_and_theirs_agree_on_every_document(oracle: Run, blind: Run) -> None:
    # Where lmms-eval logs a score for a document: right and wrong are those of the trace.
    seen = 0
    for done in (oracle, blind):
        traces = traces_by_name(done)
        for name, sample in done.samples.items():
            if name.startswith(("videomme", "lvbench")):
                scored = sample.get("videomme_perception_score", {}).get(
                    "score", sample.get("lvbench_score")
                )
                assert bool(scored) == traces[name].correct, name
                seen += 1
            elif name.startswith("mlvu"):
                told = sample["mlvu_percetion_score"]
                assert (told["pred_answer"] == told["answer"]) == traces[name].correct, name
                seen += 1
    assert seen == 2 * (12 + 8 + 28 + 36)


def test_the_commands_read_a_benchmark_run(
    oracle: Run, blind: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(oracle.folder / "traces"), str(blind.folder / "traces")
    assert main(["diff", first, second]) == 0
    assert f"{len(oracle.samples)} played by both" in capsys.readouterr().out
    assert main(["report", first, "--by", "duration", "--out", str(tmp_path / "report.html")]) == 0
    assert "medium" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_letter_is_sent_where_a_letter_is_asked_for(benchmarks: Benchmarks, tmp_path: Path) -> None:
    model = {"policy": "scripted:say_the_option", "recipe": "LONGVT_TINY", "text": True}
    done = run(tmp_path, ["egoschema_subset", "lvbench", "video_mmmu_perception"], model)
    assert {len(sample["filtered_resps"]) for sample in done.samples.values()} == {1}
    assert set(done.table.values()) == {1.0}
    assert any("." in (trace.answer or "") for trace in traces_by_name(done).values())  # it wrote more


def test_a_response_that_never_ends_is_no_answer(benchmarks: Benchmarks, tmp_path: Path) -> None:
    """Letters in its thoughts are no answer, though lmms-eval would find one in the text."""
    model = {"policy": "scripted:never_ends", "recipe": "LONGVT_TINY", "text": True, "max_turns": 3}
    done = run(tmp_path, ["videomme", "lvbench"], model)
    assert set(done.table.values()) == {0.0}
    traces = traces_by_name(done)
    assert {(trace.ending, len(trace.turns), trace.correct) for trace in traces.values()} == {
        ("turn_limit", 3, False)
    }
    assert {sample["filtered_resps"] for sample in done.samples.values()} == {"-"}


@pytest.mark.parametrize("form", ["images", "video"])
def test_a_checkpoint_plays(form: str, benchmarks: Benchmarks, tmp_path: Path) -> None:
    """A tiny Qwen2.5-VL of random weights: whatever it says, every document has a response."""
    config = Config.of(tasks="procedural:brief_event?level=0&duration_s=60&event_s=3&count=50")
    model = {
        "checkpoint": tiny_checkpoint(tmp_path / "tiny", config),
        "recipe": "LONGVT_TINY",
        "max_new_tokens": 12,
        "max_concurrent_rollouts": 4,
        "max_turns": 2,
        "skim_frames": 6,
        "video_form": form == "video",
    }
    done = run(tmp_path, ["videomme", "longvt"], model)
    traces = traces_by_name(done)
    assert traces.keys() == done.samples.keys() and len(traces) == 16
    assert {len(trace.skim.times_s) for trace in traces.values()} == {6}
    assert all(len(trace.turns) in (1, 2) for trace in traces.values())
    assert 0 <= done.table[("videomme", "videomme_perception_score")] <= 100
    tokens = [sample["token_counts"][0]["output_tokens"] for sample in done.samples.values()]
    assert all(1 <= count <= 24 for count in tokens)
