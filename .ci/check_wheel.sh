#!/usr/bin/env bash
# usage: check_wheel.sh [CONSTRAINTS]
# Build the source archive and from it the wheel, install that into an empty
# environment with the base dependencies only, and use it from another folder.
# BIN: where the tools lie; EMPTY: that environment, if it has been made;
# PYTHON: the interpreter that it is made of, if not.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
bin=${BIN:-$root/.venv/bin}
python=${PYTHON:-$bin/python}
constraints=$(realpath "${1:-constraints.txt}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=${EMPTY:-$work/empty}
export PIP_DISABLE_PIP_VERSION_CHECK=1

"$bin/python" -m build --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 ||
  { tail -n 40 "$work/build.log"; exit 1; }
ls -l "$work/dist"
"$bin/twine" --no-color check --strict "$work"/dist/*
"$bin/check-wheel-contents" --no-config "$work"/dist/*.whl

[ -x "$folder/bin/python" ] || PYTHON=$python .ci/empty_environment.sh "$folder" "$constraints"
empty=$folder/bin
install() { "$empty/python" -m pip install --quiet --no-compile --constraint "$constraints" "$@"; }
install "$work"/dist/*.whl
"$empty/python" -m pip check

# No GUI toolkit comes with the base dependencies.
if "$empty/python" -m pip list 2>/dev/null | grep -iE '^(napari|pyqt|pyside)[^-]* '; then
  echo "a base dependency brings napari or a Qt binding" >&2
  exit 1
fi

mkdir "$work/elsewhere"
cd "$work/elsewhere"
export PATH="$empty:$PATH"
unset PYTHONPATH

semsr --version
"$empty/python" "$root/.ci/use_installed.py" "$root"

# napari's plugin engine reads the installed manifest.
install npe2
"$empty/python" "$root/.ci/use_manifest.py"
echo "The installed wheel works."
