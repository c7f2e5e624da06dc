#!/usr/bin/env bash
# Searches for layers on 5,000 embedded handwritten digits, on this machine. Needs Python 3.11 or newer.
#   launch/search_local.sh [--config.KEY=VALUE ...]
# The same command resumes an interrupted search. WORKDIR=runs/other chooses another work directory.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh demo
# Without an accelerator, libtpu (from launch/test.sh) would look for a TPU and complain.
[ -e /dev/nvidia0 ] || [ -e /dev/accel0 ] || [ -e /dev/vfio/0 ] || export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
exec python -m experiments.search --config=experiments/configs/search_mnist5k.py \
  --workdir="${WORKDIR:-runs/mnist5k}" "$@"
