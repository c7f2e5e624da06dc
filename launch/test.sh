#!/usr/bin/env bash
# Lints and runs the tests in a virtual environment of this checkout.
#   launch/test.sh [--exhaustive] [PYTEST_ARGUMENT ...]
# --exhaustive also runs the heavy proofs, which carry the marker of that name.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh test
marker="not exhaustive"
if [ "${1-}" = --exhaustive ]; then
  marker=
  shift
fi
ruff check .
# Two processes, because most tests wait for one core to build programs. Each file stays in one process, where its
# fixtures are.
exec python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "$marker" "$@"
