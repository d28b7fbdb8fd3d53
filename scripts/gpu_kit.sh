#!/usr/bin/env bash
# usage: gpu_kit.sh [OUT] [--dry] [--parts "right fast adapt train"|denoise] [options]
#        gpu_kit.sh prepare | keep FOLDER
# What is done with a card while one is at hand; OUT is where the results go, else $OUT.
# `prepare` takes wheels, images and a place to .gpu, on a machine with a network. `keep`
# puts what came back to benchmarks/rows/gpu and benchmarks/campaign. --dry tries all of
# it on a CPU. It touches no network: what Python lacks comes from .gpu/wheels.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
parts="right fast adapt train"  # denoise: in a call of its own, for its minutes
declare -A limit=([right]=60 [fast]=90 [adapt]=60 [train]=330 [denoise]=480)
out=${OUT:-} dry=() more=()

if [ $# -gt 0 ] && [ "$1" = keep ]; then
  mkdir -p benchmarks/rows/gpu
  for part in $parts denoise; do
    [ ! -f "$2/$part.json" ] || cp "$2/$part.json" "benchmarks/rows/gpu/$part.json"
  done
  for packed in "$2"/*.tar; do
    [ ! -f "$packed" ] || tar -xf "$packed" -C benchmarks/campaign
  done
  git status --short benchmarks/rows/gpu benchmarks/campaign
  exit
fi
prepare=
if [ $# -gt 0 ] && [ "$1" = prepare ]; then
  prepare=yes
elif [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  out=$1
fi
[ -z "$prepare$out" ] || [ $# -eq 0 ] || [ "${1#-}" != "$1" ] || shift
while [ $# -gt 0 ]; do
  case $1 in
  --dry) dry=(--dry) ;;
  --parts)
    parts=$2
    shift
    ;;
  *) more+=("$1") ;;
  esac
  shift
done

# The package's version is read from its metadata, and wheels go where nothing else is.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
mkdir "$site/napari_semsr-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: napari-semsr\nVersion: %s\n' "$version" \
  >"$site/napari_semsr-$version.dist-info/METADATA"
export PYTHONPATH=$site:src:scripts:benchmarks${PYTHONPATH:+:$PYTHONPATH}
export SEMSR_CACHE=$site/cache PYTHONUNBUFFERED=1
if [ -n "$prepare" ]; then
  "$python" -m gpu.prepare "${more[@]}"
  exit
fi
if ! "$python" -c 'import pydantic, zarr, dask, distributed, yaozarrs' 2>/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --target "$site/wheels" .gpu/wheels/*.whl
  export PYTHONPATH=$site/wheels:$PYTHONPATH
fi
[ -n "$out" ] || {
  echo "Give the folder for the results, as the first argument or as OUT." >&2
  exit 2
}
mkdir -p "$out"
failed=()
for part in $parts; do
  options=()
  [ "$part" != train ] || options=("${more[@]}")
  echo "== $part"
  # Each result is written at once; on a card, what takes longer is ended.
  ending=(timeout $((limit[$part] + 10)))
  [ ${#dry[@]} = 0 ] || ending=()
  "${ending[@]}" "$python" -m "gpu.$part" "$out" "${dry[@]}" \
    --seconds "${limit[$part]}" "${options[@]}" || failed+=("$part")
done
rm -f "$out"/*.partial
if [ ${#failed[@]} -gt 0 ]; then
  echo "Not whole: ${failed[*]}" >&2
  exit 1
fi
