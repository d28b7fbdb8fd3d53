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
schema() { check "$1" "$bin/check-jsonschema" --builtin-schema "$@"; }
schema vendor.github-workflows .github/workflows/*.yml
schema custom.github-workflows-require-timeout .github/workflows/test.yml
schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
schema vendor.dependabot .github/dependabot.yml
schema vendor.citation-file-format CITATION.cff

if [ ${#failed[@]} -gt 0 ]; then
  printf 'Failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
