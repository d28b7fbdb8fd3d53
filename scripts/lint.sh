#!/usr/bin/env bash
# Every check that reads the code without running it; each runs, failures are counted.
set -uo pipefail

bin=${BIN:-.venv/bin}
failed=()

check() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

check "ruff check" "$bin/ruff" check
check "ruff format" "$bin/ruff" format --check
check "mypy" "$bin/mypy"
check "import layers" "$bin/lint-imports"
check "docstrings of the faces" "$bin/python" scripts/lint_docstrings.py
check "manifest" "$bin/npe2" validate src/napari_semsr/napari.yaml

if [ ${#failed[@]} -gt 0 ]; then
  printf 'Failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
