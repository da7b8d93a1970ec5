"""Every command of `agents` and the examples, given what it cannot use: one line and status 2.

A command that is not in the table is a test that fails, and so is a number without bounds.
"""

# ruff: noqa: D103

import contextlib
import io
import math
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import evaluate, train_grpo, train_grpo_mllm, train_ppo, train_ppo_mllm, train_rft, train_sft
from agents.benchmarks.players import BenchmarkConfig
from agents.training.options import LoopConfig, options_of
from agents.vlm.records import Record, TurnRecord, write_records
from videogym import get_recipe

ROOT = Path(__file__).parents[2]
LOOPS = ("train_sft", "train_rft", "train_grpo_mllm", "train_ppo_mllm")  # of language models
COMPACT = ("train_ppo", "train_grpo")
RUNS = ("experiments.lift", "experiments.demo_mllm", "experiments.study")
ALONE = ("experiments.needle", "experiments.demo")
TASKS = "procedural:brief_event?level=0&duration_s=60&count=3&split=train"
HELD_OUT = TASKS.replace("train", "val")
FILES = {
    "nowhere.jsonl": None,
    "empty.jsonl": b"",
    "foreign.jsonl": b'{"a": 1}\n',
    "list.jsonl": b"[1]\n",
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "binary.jsonl": bytes(range(256)),
    "file.txt": b"x",
}
BAD = [*(name for name in FILES if name != "file.txt"), "folder"]
# Python programs that are no commands of a user's.
NO_COMMANDS = {"agents/engines/vllm_plugin/supervise.py"}
Case = tuple[str, list[str], str]  # module, what stands behind it, what is said


def some(number: int, count: int = 2) -> list[str]:
    """Some of the bad files, others for every number: all commands together see each with each option."""
    return [BAD[(3 * number + place) % len(BAD)] for place in range(count)]


def of_loops() -> Iterator[Case]:
    for number, name in enumerate((*LOOPS, *COMPACT)):
        for bad in some(number):
            yield name, ["--tasks", bad, "--eval-tasks", HELD_OUT], bad
        for bad in some(number + 1, 1):
            yield name, ["--config", bad], bad
        bad = ("nowhere", "file.txt", "file.txt/folder")[number % 3]
        yield name, ["--video-root", bad], f"video_root must be a folder, got '{bad}'"
        more = [
            (["--recipe", "LONGVT/papr"], "unknown recipe 'LONGVT/papr'; known: "),
            (["--logger", "wandbb"], "invalid choice: 'wandbb'"),
            (["--judge", "nobody"], "nobody"),
            (["--judge", "rules", "--judge-model", "m"], "judge"),
            (["--seed", "-1"], "seed must be from 0 to 4294967295, got -1"),
            (["--learning-rate", "nan"], "learning_rate must be a finite number, got nan"),
        ]
        for arguments, said in more[number % 3 :: 3]:
            yield name, arguments, said
    yield "train_ppo", ["--out", "file.txt/run"], "file.txt"
    yield "train_sft", ["--out", "file.txt/run"], "file.txt"
    for number, name in enumerate(LOOPS):
        bad = ("./nowhere", "folder", "file.txt", "empty.jsonl")[number]
        yield name, ["--checkpoint", bad], f"--checkpoint {bad} is no model that can be loaded"
        for bad in some(number):
            yield name, ["--prompt-file", bad], bad
    yield "train_grpo_mllm", ["--device", "cud"], "--device: device 'cud' cannot be used"
    yield "train_ppo", ["--start", "warm"], "invalid choice: 'warm'"
    yield "train_grpo", ["--look-arguments", "[]"], "look_arguments must be objects"
    yield (
        "train_grpo",
        ["--episodes", "100", "--group-size", "8"],
        "episodes must be a multiple of group_size, got 100 and 8",
    )
    for name, size in (("train_grpo", 8), ("train_ppo", 1)):
        more = ["--episodes", "100", "--collector", "parallel", "--workers", "3"]
        yield name, more, f"episodes must be a multiple of workers x group_size, got 100 and 3 x {size}"
    for bad in BAD:
        yield "train_sft", ["--records", bad], bad
    for bad in some(0, 4):
        yield "train_sft", ["--images", bad], bad
    for bad in some(1, 4):
        yield "train_rft", ["--rollouts", bad], bad
    yield "train_rft", [], "rollouts must name the file or folder of records to select from"
    yield "train_sft", ["--hasty", "0.5"], "hasty=0.5 needs script='scenes', got 'evidence'"


def of_others() -> Iterator[Case]:
    played = ["--recipe", "LONGVT_TINY", "--tasks", TASKS]
    for number, name in enumerate(("evaluate", "experiments.latency", "experiments.other_grammars")):
        model = ["--checkpoint", "CHECKPOINT"]
        out = [] if name == "experiments.latency" else ["--out", "out"]
        for bad in some(number, 3):
            yield name, [*model, *out, "--recipe", "LONGVT_TINY", "--tasks", bad], bad
        bad = ("./nowhere", "folder", "file.txt")[number]  # what may be on a hub is looked for there
        yield name, ["--checkpoint", bad, *out, *played], f"{bad} "
        yield name, [*model, *out, *played, "--recipe", "LONGVT"], "unknown recipe 'LONGVT'; known: "
        yield name, [*model, *out, *played, "--video-root", "nowhere"], "got 'nowhere'"
        yield name, [*model, *out, *played, "--threads", "0"], "threads must be from 1 to 1024, got 0"
        yield name, [*model, *out, *played, "--server", "nowhere"], "nowhere"
    for name in ("evaluate", "experiments.other_grammars"):
        yield name, [*model, *played, "--out", "file.txt/out", "--episodes", "1"], "file.txt/out"
    yield "experiments.latency", [*model, *played, "--out", "file.txt/out"], "file.txt"
    yield "experiments.other_grammars", ["--checkpoint", "CHECKPOINT", *played], "--out"
    for bad in BAD:
        yield "tools.traces", [bad, "--tasks", TASKS, "--out", "t.jsonl"], bad
        yield "tools.export", [bad, "--format", "trl", "--out", "out"], bad
        yield "tools.conformance", [bad], bad
    for bad in some(0, 4):
        more = ["--checkpoint", "CHECKPOINT", "--format", "trl", "--out", "out"]
        yield "tools.export", [bad, *more], bad
    yield "tools.traces", ["RECORDS", "--tasks", "nowhere.jsonl", "--out", "t.jsonl"], "nowhere.jsonl"
    yield "tools.traces", ["RECORDS", "--tasks", TASKS, "--out", "file.txt/t.jsonl"], "file.txt"
    more = ["--checkpoint", "./nowhere", "--format", "trl", "--out", "out"]
    yield "tools.export", ["RECORDS", *more], "nowhere has no tokenizer that can be loaded"
    more = ["--checkpoint", "CHECKPOINT", "--format", "trl", "--out", "file.txt"]
    yield "tools.export", ["RECORDS", *more], "file.txt"
    sizes = ["--max-model-len", "9", "--max-images", "1", "--max-frame-pixels", "784"]
    yield "engines.vllm_server", ["folder", *sizes], "folder has none of preprocessor_config.json"
    yield "engines.vllm_server", ["nowhere", *sizes, "--vllm", "no-vllm"], "no executable no-vllm"
    yield "engines.vllm_server", ["nowhere", *sizes, "--port", "99999"], "99999"
    yield (
        "engines.vllm_server",
        ["nowhere", *sizes, "--max-images", "0"],
        "--max-images: must be at least 1",
    )


def of_experiments() -> Iterator[Case]:
    for name in (*RUNS, *ALONE):
        seeds = "--seed" if name == "experiments.demo" else "--seeds"
        yield name, [seeds, "-1"], "must be from 0 to 4294967295, got -1"
        yield name, [seeds, "x"], "invalid int value: 'x'"
    for name in RUNS:
        yield name, ["--jobs", "0"], "--jobs: must be at least 1, got 0"
    yield "experiments.study", ["--report", "--out", "folder"], "holds no cell yet"
    yield "experiments.study", ["--report", "--out", "study"], "study/cells/full-0.json is no cell"
    yield "experiments.study", ["--confidence", "nan"], "--confidence: must be a finite number, got nan"
    yield "experiments.needle", ["--out", "file.txt"], "file.txt"
    yield "experiments.needle", ["--seeds", "0", "--out", "study"], "study/seed-0.json is no result"
    yield "experiments.needle", ["--rounds", "0"], "--rounds: must be at least 1, got 0"
    yield "experiments.needle", ["--rounds", "9" * 400], "--rounds: must be a finite number, got 9"
    yield "experiments.demo_planted", ["--train", "folder"], "--test"
    both = ["--train", "nowhere", "--test", "nowhere"]
    yield "experiments.demo_planted", both, "--train must be a folder, got 'nowhere'"
    yield "experiments.demo_planted", ["--train", "folder", "--test", "folder"], "no video of split 'all'"
    for option in ("--videos", "--tasks", "--rounds"):
        yield "experiments.demo_planted", [option, "0"], f"{option}: must be at least 1, got 0"
    yield "experiments.demo_planted", ["--seed", "-1"], "--seed: must be from 0"
    yield "experiments.demo_planted", ["--out", "file.txt/runs"], "file.txt/runs"
    yield "experiments.demo", ["--videos", "0"], "--videos: must be at least 1, got 0"
    for name in (*RUNS, "experiments.demo"):
        yield name, ["--out", "file.txt/runs"], "file.txt/runs"
    for name in ("experiments.lift", "experiments.demo_mllm"):
        yield name, ["--recipes", "LONGVT"], "invalid choice: 'LONGVT'"
    yield "experiments.lift", ["--stages", "gpro"], "unknown stage 'gpro'; known: lesson, practice"


RECORD = Record(
    recipe=get_recipe("LONGVT_TINY").identity, tokenizer="abc", task_id="x", group="g", sample_index=0,
    kind="rollout", head=(), window=None, turns=(TurnRecord((), ()),), ending="answered", success=True,
)  # fmt: skip
CASES = [*of_loops(), *of_others(), *of_experiments()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of which none is what a command asks for."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        if content is not None:
            (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "study" / "cells").mkdir(parents=True)
    (folder / "study" / "cells" / "full-0.json").write_text("{}")
    (folder / "study" / "seed-0.json").write_text("[")
    return folder


def run(module: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """The status of a program, and its lines beside those of its usage."""
    told = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(told),
        contextlib.redirect_stdout(told),
        pytest.raises(SystemExit) as ended,
        pytest.MonkeyPatch.context() as patch,
    ):
        warnings.simplefilter("ignore")  # that another test has imported the module
        patch.setattr("sys.argv", [module, *arguments])
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    text = told.getvalue().replace("\r", "\n")  # of bars of progress
    return ended.value.code, [one for one in text.splitlines() if "error: " in one]


@pytest.mark.usefixtures("hub_offline")
@pytest.mark.parametrize(("command", "arguments", "said"), CASES, ids=lambda part: str(part)[:60])
def test_a_mistake_is_a_line(
    command: str,
    arguments: list[str],
    said: str,
    place: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    named = {"CHECKPOINT": str(checkpoints["qwen2_5_vl"]), "RECORDS": str(tmp_path / "records.jsonl")}
    if "RECORDS" in arguments:
        write_records(Path(named["RECORDS"]), [RECORD])
    arguments = [named.get(one, one) for one in arguments]
    if command.startswith("train") and "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    if command in LOOPS and "--checkpoint" not in arguments:
        arguments += ["--checkpoint", named["CHECKPOINT"]]
    status, lines = run(f"agents.{command}", arguments)
    assert status == 2 and len(lines) == 1 and said in lines[0], (status, lines)


def test_the_table_has_every_command() -> None:
    """All modules of `agents` that are programs."""
    programs = [
        path.relative_to(ROOT)
        for path in (ROOT / "agents").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]
    names = {".".join(path.with_suffix("").parts[1:]) for path in programs if str(path) not in NO_COMMANDS}
    assert {command for command, _, _ in CASES} == names


PLAYED = {"checkpoint": "x", "recipe": "LONGVT_TINY", "tasks": TASKS}
CONFIGS: list[tuple[type[LoopConfig], dict[str, Any]]] = [
    *((loop.Config, {}) for loop in (train_sft, train_rft, train_grpo_mllm, train_ppo_mllm)),
    *((loop.Config, {}) for loop in (train_ppo, train_grpo)),
    (evaluate.Config, PLAYED),
    (BenchmarkConfig, PLAYED),
]


@pytest.mark.parametrize(("config", "needed"), CONFIGS, ids=lambda part: getattr(part, "__module__", ""))
def test_a_number_beside_its_bounds_is_refused_by_its_name(
    config: type[LoopConfig], needed: dict[str, Any]
) -> None:
    """And every number has bounds, those of groups too."""
    config.of(**needed)
    for option in options_of(config):
        if option.kind not in (int, float):
            continue
        bounds = option.bounds
        assert bounds is not None, f"{option.name} has no bounds"
        beside = [bounds.least if bounds.open else bounds.least - 1]
        beside += [] if bounds.most == math.inf else [bounds.most if bounds.below else bounds.most + 1]
        beside += [math.nan, math.inf, -math.inf] if option.kind is float else []
        for value in beside:
            with pytest.raises(ValueError, match=rf"^{option.name} must be .*, got {value}"):
                config.of(**needed, **{option.name: value})
