#!/usr/bin/env bash
# What a worker of a TPU does; launch/tpu_search.sh copies the checkout there and calls this over ssh.
#   set_up [DATA]  makes the environment, and copies the gs:// folder DATA to ~/tensorflow_datasets
#   start ARG ...  searches in a session of its own; a search that is running goes on
#   state          one line: running, or how the last search ended
#   stop           ends the search as Ctrl-C does
set -euo pipefail
cd "$(dirname "$0")/../.."

set_up() {
  # Ubuntu 22.04, which the images are made of, has Python 3.10; the package needs 3.11. uv brings a Python: without
  # root, and without apt, whose lock the automatic upgrades of a new machine hold.
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

# setsid and flock are on every Linux; tmux need not be, and `systemd-run --user` wants lingering switched on. All
# that the search starts inherits the lock: it is held, and the chips are in use, as long as any of it lives.
start() {
  exec 9>>search.lock
  flock --nonblock 9 || {
    echo "$HOSTNAME: searching already"
    return
  }
  rm -f search.pid
  setsid --fork launch/tpu/worker.sh keep_searching "$@" >>search.log 2>&1 </dev/null
  timeout 30 bash -c 'until [ -s search.pid ]; do sleep 0.1; done' # for a stop right after
  echo "$HOSTNAME: started, the log is ~/evonorms/search.log"
}

# Starts the search again when it fails, as it does on all hosts when one is lost. Repeated quick failures end it.
keep_searching() {
  trap : INT # Ctrl-C is for the search, which saves and ends with 130
  echo $$ >search.pid
  echo interrupted >search.outcome # what is read if the machine goes down
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
    kill -INT -- "-$(cat search.pid)" # setsid made it the leader of a group
    flock --timeout 300 search.lock true || {
      echo "error: $HOSTNAME: still searching after 300 s" >&2
      exit 1
    }
  fi
  state
}

"$@"
