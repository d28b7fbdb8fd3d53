#!/usr/bin/env bash
# usage: empty_environment.sh FOLDER [CONSTRAINTS]
# Make an environment of nothing but torch, the largest of the base dependencies.
# PYTHON: the interpreter that it is made of.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
python=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
"$python" -m venv "$folder"
scripts/newer_pip.sh "$folder"
"$folder/bin/python" -m pip install --quiet --no-compile --constraint "${2:-constraints.txt}" torch
