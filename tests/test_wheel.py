"""The wheel holds the environment, the training code as `videogym.agents`, and types; it needs no checkout.

The wheel is unpacked into an environment of its own that borrows the installed dependencies, so that no
network is needed; ``make test-wheel`` installs it with pip into a fresh one.
"""
# ruff: noqa: D103

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.split()[-1]


def installed(wheel: Path, folder: Path) -> Path:
    """Make an environment of the wheel alone; its site-packages."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    return site


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that finds the wheel and what it depends on, and no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    site = installed(wheel, folder)
    # A path in a .pth file is searched, but its own .pth files (an editable install's) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-I", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_claims_one_name_and_leaves_nothing_out(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"videogym"}
    expected = {
        f"{prefix}{path.relative_to(ROOT / folder)}"
        for folder, prefix in (("videogym", "videogym/"), ("agents", "videogym/agents/"))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info" not in name} == expected


def test_a_checkout_is_installed_by_reference_and_nothing_is_copied(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    program = BUILD.replace("build_wheel", "build_editable")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist()
    assert [name for name in names if ".dist-info" not in name] == ["_videogym.pth"]


def test_the_environment_is_made_by_name_and_loads_no_torch(python: Path, tmp_path: Path) -> None:
    program = (
        "import sys, gymnasium, pathlib\n"
        "gymnasium.make('videogym:videogym/VideoQA-v0').reset(seed=0)\n"
        "assert 'torch' not in sys.modules\n"
        "print(pathlib.Path(sys.modules['videogym'].__file__).parent.parent)"
    )
    place = Path(run(python, tmp_path, "-c", program).strip())
    assert place.parent.parent.parent == python.parent.parent


def test_training_starts_without_a_checkout(python: Path, tmp_path: Path) -> None:
    said = run(python, tmp_path, "-m", "videogym.agents.train_grpo", "--help")
    assert "--out" in said


def test_a_type_checker_finds_the_types(wheel: Path, tmp_path: Path) -> None:
    """Of the wheel; it is given no dependencies, whose types take it half a minute."""
    pytest.importorskip("mypy")
    installed(wheel, tmp_path / "environment")
    python = tmp_path / "environment" / "bin" / "python"
    script = tmp_path / "script.py"
    script.write_text(
        "import videogym\n"
        "env = videogym.VideoQAEnv('procedural:brief_event?duration_s=60&count=1')\n"
        "observation, info = env.reset(seed=0)\n"
        "reveal_type(env.state)\n"
        "videogym.Crop('soon', 3.0)\n"
    )
    arguments = ["--python-executable", str(python), "--cache-dir", str(tmp_path / "cache"), str(script)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert '"videogym.state.State"' in done.stdout
    assert 'Argument 1 to "Crop" has incompatible type "str"; expected "float"' in done.stdout
    assert "Found 1 error" in done.stdout


def test_lmms_eval_finds_the_model_of_the_wheel(python: Path, tmp_path: Path) -> None:
    """By the entry point, whose class is in `videogym.agents` and is not loaded before it is asked for."""
    program = (
        "import importlib.util, sys, types\n"
        "from importlib.metadata import entry_points\n"
        "stub = types.ModuleType('lmms_eval.models.registry_v2')\n"
        "stub.ModelManifest = lambda name, chat_class_path: (name, chat_class_path)\n"
        "for name in ('lmms_eval', 'lmms_eval.models'): sys.modules[name] = types.ModuleType(name)\n"
        "sys.modules[stub.__name__] = stub\n"
        "(point,) = entry_points(group='lmms_eval.models', name='videogym')\n"
        "name, path = point.load()()\n"
        "assert importlib.util.find_spec(path.rpartition('.')[0])\n"
        "assert 'torch' not in sys.modules and 'videogym.agents.vlm' not in sys.modules\n"
        "print(name, path)"
    )
    said = run(python, tmp_path, "-c", program)
    assert said.split() == ["videogym", "videogym.agents.benchmarks.lmms_model.VideoGym"]
