"""Imports run one way, and what the package needs at run time is what it says it needs."""

# ruff: noqa: D103

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "videogym"
# Each layer may import itself and those before it.
LAYERS = (
    (
        "extras",
        "intervals",
        "metadata",
        "subtitles",
        "geometry",
        "writing",
        "rules",
        "state",
        "sizes",
        "responding",
        "video",
    ),
    ("cost",),
    ("answers", "spaces", "search"),
    ("actions",),
    ("grammars",),
    ("observations", "rewards", "recipes", "datasets", "judging", "mistakes"),
    ("env",),
    ("wrappers", "grouping", "evaluate", "rendering", "traces", "tool_episode"),
    ("serving",),
    ("testing", "isolation", "doctor", "results", "report", "play", "data"),
    ("mcp_server", "openenv", "verifiers", "lmms_eval"),
    ("comparison",),
    ("cli", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Rendering is drawn by `env.render` and imported there, when it is called.
ALLOWED = {("env", "rendering")}


def imports(path):
    """Modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(path):
    """The module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    assert layer(path) in LEVEL, f"{path}: say in LAYERS where it belongs"
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("agents", "torch", "torchrl", "tensordict", "transformers"), (
            f"{path} imports {name}"
        )
        if parts[0] != "videogym" or (layer(path), parts[1]) in ALLOWED:
            continue
        assert parts[1] in LEVEL, f"{path}: {name} goes around the modules"
        assert LEVEL[parts[1]] <= LEVEL[layer(path)], f"{path} imports {name}, which is above it"


def test_indices_stay_below_the_grammars():
    # The state speaks seconds: nothing of sampling reaches it, and types are all it takes from video.
    names = [name for name in imports(PACKAGE / "state.py") if name.startswith("videogym")]
    plain = {"videogym.geometry", "videogym.metadata", "videogym.rules", "videogym.subtitles"}
    assert [n for n in names if n.rpartition(".")[0] not in plain] == ["videogym.video.types.VideoMeta"]


def test_a_fresh_interpreter_loads_the_base_install_only():
    program = (
        "import json, sys, videogym; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(json.loads(done.stdout))
    absent = {
        "torch",
        "torchrl",
        "tensordict",
        "transformers",
        "decord",
        "matplotlib",
        "PIL",
        "pyarrow",
        "httpx2",
        "jinja2",
        "agents",
        "pytest",
    }
    assert not loaded & absent
    assert {"numpy", "gymnasium", "av", "videogym"} <= loaded


def test_rendering_and_testing_load_no_torch():
    program = (
        "import sys, videogym.rendering, videogym.testing.env_suite, videogym.testing.conformance; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


AGENTS = PACKAGE.parent / "agents"
# Rooms of `agents/`, and the files on top of it; each may import itself and those before it.
ROOMS = (
    ("training", "demonstrations"),
    ("models", "compact"),
    ("engines",),
    ("vlm",),
    ("collectors",),
    ("tools",),
    ("benchmarks",),
    ("top",),
    ("experiments",),
)
ROOM_LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
MODULES = {".".join(path.relative_to(AGENTS).with_suffix("").parts): path for path in AGENTS.rglob("*.py")}
# What runs inside a vLLM lies beside the engines, and is no part of the package.
MODULES = {name: path for name, path in MODULES.items() if "__init__" not in name and "plugin" not in name}


def agents_imports(module):
    """Modules of `agents/` that one of them imports, anywhere in it."""
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module is None or not node.module.startswith("agents"), (
                f"{module}: say it relatively"
            )
            if node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                for alias in node.names:
                    names = ".".join(filter(None, base)), ".".join(filter(None, [*base, alias.name]))
                    yield names[1] if names[1] in MODULES else names[0]


def room(module):
    """The room of a module."""
    return module.split(".")[0] if "." in module else "top"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_of_agents_import_one_way(module):
    for name in agents_imports(module):
        assert room(name) in ROOM_LEVEL, f"{module}: say in ROOMS where the room of {name} belongs"
        assert ROOM_LEVEL[room(name)] <= ROOM_LEVEL[room(module)], (
            f"{module} imports {name}, which is above it"
        )


def test_no_module_of_agents_imports_itself_over_others():
    done = set()

    def follow(module, path):
        assert module not in path, " imports ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in agents_imports(module):
                follow(name, [*path, module])
            done.add(module)

    for module in sorted(MODULES):
        follow(module, [])
