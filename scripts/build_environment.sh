#!/usr/bin/env bash
# usage: build_environment.sh FOLDER [EXTRAS]
# Make a virtual environment with the pinned versions, or bring one up to date. What pip
# says goes to FOLDER/build.log; its end is shown where something failed.
set -euo pipefail

folder=$1
extras=${2:+[$2]}
python=${PYTHON:-python3}
started=$SECONDS
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ ! -x "$folder/bin/python" ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1). Try: make PYTHON=python3.12" >&2
    exit 1
  }
  "$(dirname "$0")/system_packages.sh" venv
  "$python" -m venv "$folder"
  "$(dirname "$0")/newer_pip.sh" "$folder"
fi

log=$folder/build.log
: >"$log"
install() {
  "$folder/bin/python" -m pip install --no-compile --constraint constraints.txt "$@" >>"$log" 2>&1 || {
    echo "pip install $* failed. The end of $log:" >&2
    tail -n 20 "$log" >&2
    exit 1
  }
}

compile() {
  # Not what only its own makers import, nor what neither our commands, panels nor tests
  # do: a quarter of all. What is compiled already is left.
  local one='tests?|testsuite|pip|debugpy|virtualenv|dns|fontTools|jedi|lexers|mypyc?'
  one+='|networkx|onnxruntime/[a-z]+|prompt_toolkit|setuptools|wcwidth'
  one+='|OpenGL/(raw|GL|GLES.|EGL|GLX|WGL)/[A-Z]+[0-9]*|sympy/(combinatorics|physics|stats)'
  one+='|torch/(testing|_inductor/[a-z_]+)'
  "$folder/bin/python" -m compileall -q -j "$1" -x "/($one${2:+|$2})/" "$folder/lib" >/dev/null 2>&1 || true
}

# torch first, so that its pinned build decides what comes with it. pip works on one
# core: on another, what it brought is compiled meanwhile.
install torch
compile 1 &
install hatchling editables
install --no-build-isolation --editable ".$extras"
wait
compile 2 'torch|sympy'
echo "Environment $folder is ready after $((SECONDS - started)) s."
