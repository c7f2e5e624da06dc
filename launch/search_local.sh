#!/usr/bin/env bash
# Searches for layers on 5,000 embedded handwritten digits, on this machine. Needs Python 3.11 or newer.
#   launch/search_local.sh [--config.KEY=VALUE ...]
# The same command resumes an interrupted search. WORKDIR=runs/other chooses another work directory.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh demo
exec python -m experiments.search --config=experiments/configs/search_mnist5k.py \
  --workdir="${WORKDIR:-runs/mnist5k}" "$@"
