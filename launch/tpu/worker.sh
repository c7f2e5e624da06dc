#!/usr/bin/env bash
# Runs on a worker of a TPU. launch/tpu_search.sh copies the checkout there and calls this script over ssh.
#   set_up [DATA]  makes the environment, and copies the gs:// folder DATA to ~/tensorflow_datasets
#   start ARG ...  starts the search in a session of its own, unless one is running
#   state          prints one line: running, or the outcome of the last search
#   stop           ends the search like Ctrl-C
set -euo pipefail
cd "$(dirname "$0")/../.."

set_up() {
  # The images are Ubuntu 22.04 with Python 3.10, and the package needs 3.11. uv installs a Python without root and
  # without apt, whose lock is held by the automatic upgrades of a new machine.
  local uv=$HOME/.local/bin/uv
  if ! [ -x .venv/bin/python ]; then
    [ -x "$uv" ] || curl --location --silent --show-error --fail https://astral.sh/uv/install.sh | sh
    "$uv" venv --quiet --clear --seed --python 3.12 .venv
  fi
  export PYTHON=.venv/bin/python
  source launch/environment.sh tpu,demo
  if [ -n "${1-}" ]; then
    mkdir -p ~/tensorflow_datasets
    gcloud storage rsync --recursive "$1" ~/tensorflow_datasets
  fi
  echo "$HOSTNAME: set up"
}

# Every Linux has setsid and flock. tmux may be missing, and `systemd-run --user` needs lingering. All processes of
# the search inherit the lock, so that it is held as long as one of them lives and uses the chips.
start() {
  exec 9>>search.lock
  flock --nonblock 9 || {
    echo "$HOSTNAME: searching already"
    return
  }
  rm -f search.pid
  setsid --fork launch/tpu/worker.sh keep_searching "$@" >>search.log 2>&1 </dev/null
  timeout 30 bash -c 'until [ -s search.pid ]; do sleep 0.1; done' # so that a stop finds it
  echo "$HOSTNAME: started, the log is ~/evonorms/search.log"
}

# Starts the search again after a failure. If one host is lost, the search fails on all. Quick failures in a row end it.
keep_searching() {
  trap : INT # only the search reacts to Ctrl-C: it saves and exits with 130
  echo $$ >search.pid
  echo interrupted >search.outcome # the outcome if the machine goes down
  export PYTHONUNBUFFERED=1
  local begun status failures=0 pause=${EVONORMS_TPU_PAUSE:-10}
  while :; do
    begun=$SECONDS status=0
    .venv/bin/python -m experiments.search "$@" || status=$?
    case $status in
      0) conclude finished ;;
      2) conclude "refused, the settings are wrong: see the log" ;;
      130) conclude stopped ;;
    esac
    ((SECONDS - begun < 600)) || failures=0
    ((++failures < 8)) || conclude "failed $failures times in a row: see the log"
    echo "$(date): exit status $status, again in $((pause * failures * failures)) s"
    sleep $((pause * failures * failures)) || conclude stopped
  done
}

conclude() {
  echo "$(date): $1"
  echo "$1" >search.outcome
  exit
}

running() {
  ! flock --nonblock search.lock true
}

state() {
  if running; then
    echo "$HOSTNAME: running"
  else
    echo "$HOSTNAME: $(cat search.outcome 2>/dev/null || echo "not started")"
  fi
}

stop() {
  if running; then
    kill -INT -- "-$(cat search.pid)" # setsid made it the leader of a process group
    flock --timeout 300 search.lock true || {
      echo "error: $HOSTNAME: still searching after 300 s" >&2
      exit 1
    }
  fi
  state
}

"$@"
