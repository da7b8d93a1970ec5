#!/usr/bin/env bash
# Makes an environment for the tests of a project that pins other versions than the package's own environment.
# Usage: setup.sh FOLDER LOCK [PYTHON]
set -euo pipefail
venv="$1"
lock="$2"
"${3:-python3}" -m venv "$venv"
# Without dependencies: the lock names all of them, and a resolver could pull gigabytes of CUDA packages.
"$venv/bin/pip" install --quiet --no-deps -r "$lock"
"$venv/bin/pip" install --quiet --no-deps --editable "$(dirname "$0")/../.."
# Nothing in it belongs into git.
echo '*' > "$venv/.gitignore"
touch "$venv/.installed"
