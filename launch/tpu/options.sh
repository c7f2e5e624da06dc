# Sourced by launch/tpu_search.sh: its options, from the command line or the environment, and how commands are run.
# shellcheck disable=SC2034 # used there

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
  echo "error: bash 4.4 or newer is needed, this is $BASH_VERSION" >&2
  exit 1
}

# name|default|what it is; the environment variable is EVONORMS_TPU_NAME
OPTIONS='project||Google Cloud project
zone||zone with such a TPU, for example us-east5-b
type||accelerator type, for example v6e-8 (one host) or v6e-64 (a pod slice)
version||runtime version (the one for the type)
bucket||bucket, or a folder in one, that gets the work directory gs://BUCKET/NAME
name|evonorms-search|of the TPU and of the work directory
config|experiments/configs/search_mnist5k.py|config file, in experiments/; FILE:quick is a short form
data||gs:// folder that every worker copies to ~/tensorflow_datasets
spot|false|spot capacity: cheaper, and taken back at any time
worker|0|the worker that logs follows, or all
poll|60|seconds between two looks at the TPU
create_flags||more flags of gcloud compute tpus queued-resources create, split at spaces
ssh_flags||more flags of gcloud compute tpus tpu-vm ssh and scp, for example --internal-ip
dry_run|false|only prints the commands, as if there were no TPU yet'
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

# Sets verb, option, overrides, and arguments: all but the verb.
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

# Runs a command; a dry run prints it so that it can be pasted, past any $(...), and answers nothing.
exec 3>&1
run() {
  if [ "${option[dry_run]}" = true ]; then
    quoted "$@" >&3
  else
    "$@"
  fi
}

# The words as one line for a shell, here or on a worker: quotes, spaces, $ and parentheses come out as they went in.
quoted() {
  local word words=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    words+=("$word")
  done
  printf '%s\n' "${words[*]}"
}
