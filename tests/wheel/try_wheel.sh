#!/usr/bin/env bash
# try_wheel.sh BUILDER PYTHON: builds the wheel, installs it with pip into a fresh environment, and uses it.
set -euo pipefail
builder=$(realpath -s "$1") python=$2
top=$(cd "$(dirname "$0")/../.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
(cd "$top" && "$builder" -c "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])" "$place")
cd "$place"
"$python" -m venv fresh
fresh/bin/pip install --quiet torch==2.13.0
fresh/bin/pip install --quiet --constraint "$top/constraints.txt" "$(echo videogym-*.whl)[agents]" mypy
fresh/bin/python -I - <<'PY'
import sys
import gymnasium

env = gymnasium.make("videogym:videogym/VideoQA-v0")
env.reset(seed=0)
assert "torch" not in sys.modules
print("environment:", sys.modules["videogym"].__file__)
PY
fresh/bin/python -I -m videogym.agents.train_grpo --help > /dev/null
fresh/bin/python -I -m videogym.agents.train_grpo --out run --start cold --iterations 1 --episodes 8 --group-size 4 --eval-episodes 4
printf 'import videogym\nreveal_type(videogym.open_video)\nvideogym.Crop("soon", 3.0)\n' > script.py
fresh/bin/mypy script.py | tee types.txt || true
grep -q 'incompatible type "str"; expected "float"' types.txt
echo "the wheel works in a fresh environment"
