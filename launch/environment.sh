# Sourced from the root of the checkout, with extras of setup.py ("test", "demo", "tpu,demo") as its argument. Makes
# .venv, installs the package with these extras, and activates it. The second time it only activates.
extra=$1
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: Python 3.11 or newer is needed, $("$python" --version) was found; set PYTHON=/path/to/python3" >&2
  exit 1
}

# Whether .venv works here. After the checkout has moved, its scripts name the old place. After an upgrade of Python,
# its interpreter is gone or looks for packages in an empty folder.
environment_works() (
  [ -f .venv/bin/activate ] || exit 1
  # shellcheck disable=SC1091
  source .venv/bin/activate
  [ "$(dirname "$(command -v python)")" -ef .venv/bin ] &&
    python -c 'import os, sys, sysconfig; sys.exit(not os.path.isdir(sysconfig.get_path("purelib")))'
)

# --clear also deletes the stamps, so that the packages are installed again.
environment_works || {
  [ ! -e .venv ] || echo "the checkout was moved or its Python has changed: making .venv again" >&2
  "$python" -m venv --clear .venv
}
# shellcheck disable=SC1091
source .venv/bin/activate
# The stamp is a copy of the installed setup.py, so that a changed one is installed again.
stamp=.venv/installed-$extra
if ! cmp -s setup.py "$stamp"; then
  echo "installing evonorms-jax[$extra] into .venv" >&2
  python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
  cp setup.py "$stamp"
fi
