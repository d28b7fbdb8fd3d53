#!/usr/bin/env bash
# Run a command on a virtual screen where there is Xvfb, else as it is.
set -euo pipefail

if command -v xvfb-run >/dev/null; then
  # xvfb-run itself cannot do with a TMPDIR that has a space in it.
  own=(env ${TMPDIR:+"TMPDIR=$TMPDIR"})
  exec env -u TMPDIR xvfb-run --auto-servernum --server-args="-screen 0 1600x1200x24" "${own[@]}" "$@"
fi
exec "$@"
