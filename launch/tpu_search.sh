#!/usr/bin/env bash
# Searches for layers on a Cloud TPU, one host or a pod slice. `launch/tpu_search.sh help` lists commands and options.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/tpu/options.sh
source launch/tpu/checks.sh
source launch/tpu/machine.sh

usage() {
  cat <<'END'
Searches for layers on a Cloud TPU: a VM or a pod slice, on demand or spot.

  launch/tpu_search.sh [COMMAND] [--OPTION=VALUE ...] [--config.KEY=VALUE ...]

Commands:
  up      (default) gets the TPU, installs this checkout on every worker, starts the search; reuses an existing TPU
  check   compiles the programs of the search on this machine, without a TPU, and tells whether they fit its memory
  watch   up, and up again after a preemption, until the search is finished
  status  prints the state of the TPU and of its workers
  logs    follows the log of a worker
  stop    ends the search like Ctrl-C; up resumes it
  fetch   copies the work directory to runs/tpu/NAME, apart from the searches of this machine
  report  fetch, then writes runs/tpu/NAME/report/index.html
  delete  deletes the TPU, which ends the costs, and keeps the work directory
  help    prints this text

The search runs in a session of its own on every worker and survives a broken connection. If a host is lost, the
search starts again. --config.KEY=VALUE is passed to experiments.search unchanged. For several workers gcloud needs
your key in the ssh agent: ssh-add ~/.ssh/google_compute_engine.

Options, with their environment variables and defaults:
END
  list_options
}

# Python knows the topologies of the accelerator types.
check() {
  run source launch/environment.sh compile
  run python -m experiments.compile_check --config="${option[config]}" --topology="${option[type]}" "${overrides[@]}"
}

up() {
  check_buckets
  say "'launch/tpu_search.sh check' tells in some minutes, without a TPU, whether the search fits a ${option[type]}"
  ensure_machine
  install_checkout
  on_workers all "$(quoted evonorms/launch/tpu/worker.sh start --config="${option[config]}" \
    --workdir="$workdir" --distributed "${overrides[@]}")"
  say "searching in $workdir; the TPU costs until 'launch/tpu_search.sh delete'"
}

# Copies the files that `pip install` and the search need, committed or not, so that an unfinished config can be tried.
install_checkout() {
  run mkdir -p build
  run tar --exclude=__pycache__ -czf "build/$name.tgz" evonorms_jax experiments launch setup.py README.md pyproject.toml
  copy_to_workers "build/$name.tgz" evonorms.tgz
  local set_up left="echo \"\$HOSTNAME: searching, left as it is\""
  set_up=$(quoted launch/tpu/worker.sh set_up ${option[data]:+"${option[data]}"})
  set_up="rm -rf evonorms_jax experiments launch && tar -xzf ../evonorms.tgz && $set_up"
  # A worker that is searching keeps the code that it started with.
  local check="flock --nonblock search.lock true"
  on_workers all "mkdir -p evonorms && cd evonorms && if $check; then $set_up; else $left; fi"
}

# A preempted slice is lost as a whole, and only this machine can get another. The work directory keeps the search.
watch() {
  launch/tpu_search.sh up "${arguments[@]}"
  local states
  while run sleep "${option[poll]}"; do
    states=$(worker_states 2>/dev/null) || states=unreachable
    case $states in
      "") return ;; # only in a dry run
      unreachable | *": interrupted"* | *": not "*)
        say "$name does not answer or was interrupted, getting it up again"
        launch/tpu_search.sh up "${arguments[@]}" || say "that failed, trying again in ${option[poll]} s"
        ;;
      *": refused"* | *": failed"*)
        # A worker that has given up does not restart, and the others would only wait for it.
        error "the search ended: $(stop || echo "$states")"
        ;;
      *": running"*) ;;
      *": stopped"*) error "the search ended: $states" ;;
      *) say "finished; the TPU costs until 'launch/tpu_search.sh delete'" && return ;;
    esac
  done
}

status() {
  local state
  state=$(machine_state)
  echo "$name: ${state:-ABSENT}"
  [ "$state" != READY ] || worker_states
}

worker_states() {
  # shellcheck disable=SC2016 # $HOSTNAME is the worker's
  on_workers all 'evonorms/launch/tpu/worker.sh state 2>/dev/null || echo "$HOSTNAME: not set up"'
}

logs() {
  on_workers "${option[worker]}" "tail -n 100 -F evonorms/search.log"
}

stop() {
  on_workers all "evonorms/launch/tpu/worker.sh stop"
}

fetch() {
  run mkdir -p "runs/tpu/$name"
  run gcloud storage rsync --recursive "$workdir" "runs/tpu/$name"
}

report() {
  fetch
  run source launch/environment.sh demo
  run python -m experiments.report --workdir="runs/tpu/$name"
}

delete() {
  delete_machine
  say "$workdir stays; 'gcloud storage rm --recursive $workdir' deletes it"
}

read_options "$@"
case $verb in
  up | watch) require project zone type bucket ;;
  check) require type ;;
  status | logs | stop | delete) require project zone ;;
  fetch | report) require bucket ;;
  help) usage && exit ;;
  *) usage_error "there is no command '$verb'; 'launch/tpu_search.sh help' lists them" ;;
esac
check_options
case $verb in
  up | watch | check)
    check_config
    check_layer_files
    check_settings
    ;;
  *) ((${#overrides[@]} == 0)) || usage_error "${overrides[0]} goes with up, watch and check only" ;;
esac
[[ ${option[dry_run]} == true || $verb == check ]] || command -v gcloud >/dev/null ||
  error "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
"$verb"
