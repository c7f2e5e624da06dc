# Sourced by launch/tpu_search.sh: everything that can be checked before a TPU is paid for.
# shellcheck disable=SC2154 # option, overrides and workdir come from options.sh

# Sets option[config] to the path from the root of the checkout, which is also its path on the workers.
check_config() {
  local file=${option[config]%%:*} form=${option[config]#"${option[config]%%:*}"} folder
  file=${file/#\~\//$HOME/}
  folder=$(cd "$(dirname "$file")" 2>/dev/null && pwd -P) || folder=
  [[ -f $file && $folder/ == "$(pwd -P)/experiments/"* ]] ||
    usage_error "--config must be a file in experiments/ of this checkout, got '$file'"
  option[config]=${folder#"$(pwd -P)/"}/${file##*/}$form
}

# The workers get experiments/ and no other file of this machine.
check_layer_files() {
  local override word words
  for override in "${overrides[@]}"; do
    [[ $override == --config.evolution.seed_layers=* ]] || continue
    IFS=" ,'\"()" read -ra words <<<"${override#*=}"
    for word in "${words[@]}"; do
      [[ $word != *.json* || $word =~ ^(gs://|experiments/) ]] ||
        usage_error "a seed layer must be in gs:// or in experiments/, where the workers find it, got '$word'"
    done
  done
}

# Prints a Python of this machine that has the package's dependencies, or nothing.
find_python() {
  local python
  for python in .venv/bin/python "${PYTHON:-python3}"; do
    "$python" -c 'import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in ("absl", "flax", "jax", "ml_collections")))
' 2>/dev/null && echo "$python" && return
  done
}

# Loads the config with its overrides as a worker does, without data and devices.
check_settings() {
  local python output status=0
  python=$(find_python) || true
  if [ -z "$python" ]; then
    say "no Python here has the package, so the workers are the first to check the config; PYTHON=/path names one"
    return
  fi
  output=$(JAX_PLATFORMS=cpu "$python" -m experiments.search --config="${option[config]}" --workdir="$workdir" \
    --distributed --check "${overrides[@]}" 2>&1) || status=$?
  case $status in
    0) ;;
    2) usage_error "${output#*error: }" ;;
    *) error "the config cannot be checked: $output" ;;
  esac
}

# Before hours of waiting for a TPU that could not read or write.
check_buckets() {
  local root=${bucket%%/*}
  run gcloud storage buckets describe "gs://$root" --format="value(name)" --project="${option[project]}" >/dev/null ||
    error "gs://$root is not there ('gcloud storage buckets create' makes it), or not for you (storage.buckets.get)"
  [ -z "${option[data]}" ] || run gcloud storage ls "${option[data]}" --project="${option[project]}" >/dev/null ||
    error "--data=${option[data]} is not there, or not for you (storage.objects.list)"
}
