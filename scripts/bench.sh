#!/usr/bin/env bash
# Run every benchmark, one after the other, so that none disturbs another's times.
set -uo pipefail

bin=${BIN:-.venv/bin}
failed=()
for file in benchmarks/[a-z]*.py; do
  echo "== $file"
  "$bin/python" "$file" || failed+=("$file")
done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'Failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
