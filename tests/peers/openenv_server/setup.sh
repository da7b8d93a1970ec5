#!/usr/bin/env bash
# Makes the environment of the OpenEnv tests: OpenEnv brings mcp 1, where the package's own environment has mcp 2.
# Usage: setup.sh FOLDER [PYTHON]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
venv="$1"
"${2:-python3}" -m venv "$venv"
# torch goes first and by version: any other order can pull a build with gigabytes of CUDA packages.
"$venv/bin/pip" install --quiet torch==2.13.0
"$venv/bin/pip" install --quiet --no-deps -r "$here/openenv.lock"
"$venv/bin/pip" install --quiet --no-deps --editable "$here/../../.."
# Nothing in it belongs into git.
echo '*' > "$venv/.gitignore"
touch "$venv/.installed"
