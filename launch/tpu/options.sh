# Sourced by launch/tpu_search.sh: its options, from the command line or the environment, and functions that run or
# print a command.
# shellcheck disable=SC2034 # used there

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
  echo "error: bash 4.4 or newer is needed, this is $BASH_VERSION" >&2
  exit 1
}

# name|default|meaning; the environment variable is EVONORMS_TPU_ and the name in capitals
OPTIONS='project||Google Cloud project
zone||zone with such a TPU, for example us-east5-b
type||accelerator type, for example v6e-8 (one host) or v6e-64 (a pod slice)
version||runtime version (by default the one for the type)
bucket||bucket, or a folder in one, for the work directory gs://BUCKET/NAME
name|evonorms-search|name of the TPU and of the work directory
config|experiments/configs/search_mnist5k.py|config file, in experiments/; FILE:quick is a short form
data||gs:// folder that every worker copies to ~/tensorflow_datasets
spot|false|spot capacity, which is cheaper and can be preempted at any time
worker|0|number of the worker whose log is followed, or all
poll|60|seconds between two checks of the state
create_flags||more flags of gcloud compute tpus queued-resources create, split at spaces
ssh_flags||more flags of gcloud compute tpus tpu-vm ssh and scp, for example --internal-ip
dry_run|false|prints the commands without running them, as if there were no TPU yet'
# A bucket and a folder in it: https://cloud.google.com/storage/docs/buckets#naming
GCS_PATH='^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/.*)?$'
declare -A option=()
overrides=() arguments=()

# Calls `"$@" NAME DEFAULT TEXT` for every option.
each_option() {
  local name default text
  while IFS='|' read -r name default text; do
    "$@" "$name" "$default" "$text"
  done <<<"$OPTIONS"
}

list_options() {
  each_option list_option
}

list_option() {
  printf '  --%-12s  %-26s  %s\n' "$1" "EVONORMS_TPU_${1^^}" "$3${2:+ ($2)}"
}

set_from_environment() {
  local variable=EVONORMS_TPU_${1^^}
  option[$1]=${!variable:-$2}
}

# Sets verb, option, overrides, and arguments, which are all words but the verb.
read_options() {
  each_option set_from_environment
  verb=up
  if (($#)) && [[ $1 != -* ]]; then
    verb=$1
    shift
  fi
  arguments=("$@")
  local argument key
  for argument; do
    key=${argument#--}
    key=${key%%=*}
    case $argument in
      --config.* | --noconfig.*) overrides+=("$argument") ;;
      -h | --help) verb=help ;;
      --spot | --dry_run) option[$key]=true ;;
      *)
        [[ $argument == --* && -n ${option[${key:-none}]+known} ]] ||
          usage_error "unknown option '$argument'; 'launch/tpu_search.sh help' lists them"
        [[ $argument == *=* ]] || usage_error "$argument needs a value: $argument=VALUE"
        option[$key]=${argument#*=}
        ;;
    esac
  done
}

require() {
  local key
  for key; do
    [ -n "${option[$key]}" ] || usage_error "--$key=VALUE is required, or EVONORMS_TPU_${key^^} in the environment"
  done
}

# Sets name, bucket and workdir, and the runtime version if none was given.
check_options() {
  local key
  for key in spot dry_run; do
    [[ ${option[$key]} =~ ^(true|false)$ ]] || usage_error "--$key is true or false, got '${option[$key]}'"
  done
  [[ ${option[poll]} =~ ^[0-9]+$ ]] || usage_error "--poll takes whole seconds, got '${option[poll]}'"
  [[ ${option[worker]} =~ ^([0-9]+|all)$ ]] || usage_error "--worker is a number or all, got '${option[worker]}'"
  name=${option[name]}
  [[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
    usage_error "--name takes small letters, digits and dashes, a letter first, got '$name'"
  bucket=${option[bucket]#gs://}
  bucket=${bucket%/}
  [[ -z $bucket || $bucket =~ $GCS_PATH ]] ||
    usage_error "--bucket is the name of a bucket, or gs://BUCKET/FOLDER, got '${option[bucket]}'"
  [[ -z ${option[data]} || (${option[data]} == gs://* && ${option[data]#gs://} =~ $GCS_PATH) ]] ||
    usage_error "--data is a folder in a bucket, gs://BUCKET/FOLDER, got '${option[data]}'"
  workdir=gs://$bucket/$name
  if [[ -n ${option[type]} && -z ${option[version]} ]]; then
    # https://cloud.google.com/tpu/docs/runtimes
    case ${option[type]} in
      v6e-*) option[version]=v2-alpha-tpuv6e ;;
      v5p-*) option[version]=v2-alpha-tpuv5 ;;
      v5litepod-*) option[version]=v2-alpha-tpuv5-lite ;;
      v[234]-*) option[version]=tpu-ubuntu2204-base ;;
      *) usage_error "--version=VALUE is required for the type '${option[type]}'" ;;
    esac
  fi
}

say() {
  [ "${option[dry_run]}" = true ] || echo "$(date +%H:%M:%S) $*" >&2
}

error() {
  echo "error: $*" >&2
  exit 1
}

usage_error() {
  echo "error: $*" >&2
  exit 2
}

# Runs a command. A dry run prints it instead, ready to be pasted, even inside $(...), and has no output.
exec 3>&1
run() {
  if [ "${option[dry_run]}" = true ]; then
    quoted "$@" >&3
  else
    "$@"
  fi
}

# The words as one line for a shell, here or on a worker. Quotes, spaces, $ and parentheses are preserved.
quoted() {
  local word words=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    words+=("$word")
  done
  printf '%s\n' "${words[*]}"
}
