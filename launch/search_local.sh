#!/usr/bin/env bash
# Searches for layers on 5,000 embedded handwritten digits, on this machine; needs nothing but Python 3.11.
#   launch/search_local.sh [--config.KEY=VALUE ...]
# The same command again goes on where it was stopped. Another work directory: WORKDIR=runs/other.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh demo
exec python -m experiments.search --config=experiments/configs/search_mnist5k.py \
  --workdir="${WORKDIR:-runs/mnist5k}" "$@"
