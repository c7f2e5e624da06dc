# Sourced, from the root of the checkout, with a name of an extra of setup.py ("test", "demo", ...): makes
# .venv, installs the package with that extra, and activates it. Does nothing twice.
extra=$1
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: Python 3.11 or newer is needed, $("$python" --version) was found; set PYTHON=/path/to/python3" >&2
  exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
# shellcheck disable=SC1091
source .venv/bin/activate
# The stamp holds what was installed: a changed setup.py installs again.
stamp=.venv/installed-$extra
if ! cmp -s setup.py "$stamp"; then
  echo "installing evonorms-jax[$extra] into .venv" >&2
  python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
  cp setup.py "$stamp"
fi
