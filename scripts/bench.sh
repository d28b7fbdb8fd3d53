#!/usr/bin/env bash
# Run every benchmark that prints figures, one after the other.
set -euo pipefail

bin=${BIN:-.venv/bin}
for file in benchmarks/figure_*.py; do
  [ -e "$file" ] || { echo "benchmarks/ holds no figure_*.py" >&2; exit 1; }
  echo "== $file"
  "$bin/python" "$file"
done
