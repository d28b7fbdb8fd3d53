#!/usr/bin/env bash
# usage: avx2.sh COMMAND...
# Run a command as on a processor with AVX2 and nothing wider: PyTorch, oneDNN, MKL,
# OpenBLAS and NumPy each choose their code by what the processor has, and round alike
# only where they choose alike. BIN: where the Python lies whose NumPy is meant. On a
# processor that has nothing wider the command would repeat what ran before: it does not
# run, and this passes.
set -euo pipefail

python=${BIN:-.venv/bin}/python
export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
export OPENBLAS_CORETYPE=Haswell
# NumPy warns of a name that it does not know, or that the processor lacks.
NPY_DISABLE_CPU_FEATURES=$("$python" -c '
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
wide = ("AVX512", "X86_V4")
print(*(n for n in __cpu_dispatch__ if n.startswith(wide) and __cpu_features__[n]))
')
if [ -z "$NPY_DISABLE_CPU_FEATURES" ]; then
  echo "Not run again: this processor has nothing wider than AVX2."
  exit
fi
export NPY_DISABLE_CPU_FEATURES
exec "$@"
