#!/usr/bin/env bash
# Lints and runs the whole test suite in a virtual environment of this checkout; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh test
ruff check .
exec python -m pytest "$@"
