"""A program that needs a package of an extra says so in one line where it is not installed."""

# ruff: noqa: D103

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from videogym.extras import EXTRA_OF, MissingExtra, end_by_a_line, require
from videogym.testing.coded_clips import write_clip

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Started by programs of ours, with what these have.
CHILDREN = ("videogym.isolation", "videogym.video.decord_child", "videogym.video.scan_child")
CHILDREN += ("agents.engines.vllm_plugin.supervise",)
# All that is no part of the base install, `dev` aside.
OPTIONAL = sorted(
    {*EXTRA_OF, "mcp", "mcp_types", "anyio", "uvicorn", "starlette", "fastapi", "openenv", "verifiers"}
    | {"httpx", "httpx2", "pyarrow", "scenedetect", "decord", "torchcodec", "torchvision", "vllm"}
    | {"lmms_eval", "markupsafe", "tensorboard", "datasets", "pygame"}
)
BLOCK = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def is_program(path: Path) -> bool:
    return '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__main__")


FILES = [path for package in ("videogym", "agents") for path in sorted((ROOT / package).rglob("*.py"))]
PROGRAMS = [name for name in map(module_of, filter(is_program, FILES)) if name not in CHILDREN]
PLAIN = ("videogym", "videogym.testing.conformance", "videogym.datasets.caption_questions")


def run_without(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where no package of an extra can be found."""
    (folder / "sitecustomize.py").write_text(BLOCK)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env=env, cwd=folder
    )


def test_programs_are_found():
    assert len(PROGRAMS) > 15 and {"videogym.openenv", "agents.train_grpo", *PLAIN} <= set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_without_its_packages_ends_by_one_line(program, tmp_path):
    done = run_without(tmp_path, "-m", program, "--help")
    if program in PLAIN:
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return
    (line,) = done.stderr.splitlines()
    extra = {"videogym.mcp_server": "mcp", "videogym.openenv": "openenv"}.get(program, "agents")
    assert done.returncode in (1, 2) and done.stdout == ""
    assert line.startswith("error: ") and line.endswith(f"pip install 'videogym[{extra}]'")


def test_as_a_module_it_stays_an_error_with_its_traceback(tmp_path):
    done = run_without(tmp_path, "-c", "import agents.train_grpo")
    assert done.stderr.startswith("Traceback") and "ModuleNotFoundError" in done.stderr
    done = run_without(
        tmp_path,
        "-c",
        "try:\n    import videogym.mcp_server\nexcept ImportError as error:\n    print(error)",
    )
    assert done.stdout.endswith("pip install 'videogym[mcp]'\n") and done.returncode == 0


def test_a_fault_of_a_program_keeps_its_traceback(tmp_path):
    """Only packages of extras are told in a line."""
    (tmp_path / "ours.py").write_text(
        "from videogym.extras import end_by_a_line\n"
        "end_by_a_line(__name__)\n"
        "import no_such_module_of_ours\n"
    )
    done = run_without(tmp_path, "-m", "ours")
    assert done.returncode == 1 and done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module_of_ours'"


def test_nothing_is_changed_outside_of_programs(monkeypatch):
    before = sys.excepthook
    monkeypatch.setattr(sys, "argv", ["a script.py"])
    end_by_a_line("agents")
    assert sys.excepthook is before


@pytest.mark.parametrize(
    ("program", "options", "extra"),
    [
        ("videogym report", ["traces.jsonl", "--out", "report.html"], "report"),
        ("videogym doctor", ["longvt-rl:rows.parquet"], "data"),
        ("videogym eval", ["random", "--judge", "http://127.0.0.1:9/v1", "--judge-model", "m"], "judge"),
        ("videogym data scenes", [".", "--work", "work"], "data"),
        (
            "videogym.datasets.caption_questions",
            ["rows.jsonl", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m"],
            "judge",
        ),
    ],
)
def test_an_option_that_needs_a_package_says_so_in_one_line(program, options, extra, tmp_path):
    for name in ("traces.jsonl", "rows.jsonl", "rows.parquet"):
        (tmp_path / name).touch()
    write_clip(tmp_path / "a.mp4", count=20)
    module, *steps = program.split()
    done = run_without(tmp_path, "-m", module, *steps, *options)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"'videogym[{extra}]'" in line


def test_what_is_missing_is_said_before_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=re.escape("it needs ray: pip install 'videogym[ray]'")):
        require("ray", "it")


def test_every_package_of_an_extra_is_known():
    """What the training code imports at the top of a module is told by name."""
    known = {
        *EXTRA_OF,
        "vllm",
        "lmms_eval",
        "loguru",
        "av",
        "numpy",
        "PIL",
        "gymnasium",
        "videogym",
        "agents",
    }
    for path in (ROOT / "agents").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            roots = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert roots <= known, f"{path}: say in videogym.extras which extra brings {roots - known}"
    assert set(EXTRA_OF.values()) <= set(EXTRAS)
