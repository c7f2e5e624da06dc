# Sourced by launch/tpu_search.sh: the TPU, which is a queued resource with one node of the same name, and its workers.
# A TPU VM without a queued resource is used as well.
# shellcheck disable=SC2154 # name and option come from options.sh

tpu() {
  run gcloud compute tpus "$@" --project="${option[project]}" --zone="${option[zone]}" --quiet
}

# `list` and not `describe`, because it answers with an empty line for an absent TPU and fails only on an error.
request_state() {
  tpu queued-resources list --filter="name ~ /$name\$" --format="value(state.state)"
}

node_state() {
  tpu tpu-vm list --filter="name ~ /$name\$" --format="value(state)"
}

# Prints READY, or another state of the node, or the state of the request for it, or an empty line without either.
machine_state() {
  local request node
  request=$(request_state) || return
  node=$(node_state) || return
  # The node is PREEMPTED some time before its request is SUSPENDED.
  case $request in
    "" | ACTIVE) echo "${node:-$request}" ;;
    *) echo "$request" ;;
  esac
}

# Returns when the TPU is READY: an existing one, or a new one. A preempted one is deleted and requested again.
ensure_machine() {
  local state seen=none since=$SECONDS created=false
  while :; do
    # The first check must succeed. Later ones tolerate a network that is down.
    state=$(machine_state) || { [ "$seen" != none ] && state="no answer"; } || exit 1
    if [[ $state != "$seen" ]] || ((SECONDS - since >= 600)); then
      say "$name: ${state:-ABSENT}"
      seen=$state since=$SECONDS
    fi
    case $state in
      READY) return ;;
      "" | FAILED | SUSPENDED | PREEMPTED | TERMINATED)
        [ $created = false ] || error "the request ended as ${state:-ABSENT}: $(quoted gcloud compute tpus \
          queued-resources describe "$name" --project="${option[project]}" --zone="${option[zone]}") says why"
        [ -z "$state" ] || delete_machine
        create_machine
        created=true
        [ "${option[dry_run]}" = false ] || return 0
        ;;
      STOPPED) error "$name is stopped: 'gcloud compute tpus tpu-vm start' starts it, 'delete' deletes it" ;;
      *) sleep "${option[poll]}" ;;
    esac
  done
}

create_machine() {
  local flags
  read -ra flags <<<"${option[create_flags]}"
  [ "${option[spot]}" = false ] || flags+=(--spot)
  tpu queued-resources create "$name" --node-id="$name" --accelerator-type="${option[type]}" \
    --runtime-version="${option[version]}" "${flags[@]}"
}

delete_machine() {
  local request node
  request=$(request_state)
  node=$(node_state)
  if [ -n "$request" ] || [ "${option[dry_run]}" = true ]; then
    tpu queued-resources delete "$name" --force # with its node
  elif [ -n "$node" ]; then
    tpu tpu-vm delete "$name"
  else
    say "there is no TPU $name in ${option[zone]}"
  fi
}

# Runs a command line on a worker, or on all at the same time.
on_workers() {
  local flags
  read -ra flags <<<"${option[ssh_flags]}"
  # Without keepalive messages, a connection to a lost machine would hang.
  tpu tpu-vm ssh "$name" --worker="$1" --command="$2" --ssh-flag=-oServerAliveInterval=30 "${flags[@]}"
}

copy_to_workers() {
  local flags
  read -ra flags <<<"${option[ssh_flags]}"
  tpu tpu-vm scp "$1" "$name:$2" --worker=all "${flags[@]}"
}
