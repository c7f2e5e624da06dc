#!/usr/bin/env bash
# Lints and runs the whole test suite in a virtual environment of this checkout; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh test
ruff check .
# Two processes: most tests wait for one core to build programs. A file stays in one of them for its fixtures.
exec python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@"
