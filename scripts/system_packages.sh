#!/usr/bin/env bash
# usage: system_packages.sh [venv]
# Debian packages that napari's window, its virtual screen and the report test need, or
# with `venv` the one that virtual environments need. Installs what is missing when it
# may, else names it and fails. SEMSR_SYSTEM_PACKAGES=skip leaves the machine alone.
set -euo pipefail

windows=(
  libegl1 libgl1 libopengl0 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-cursor0
  libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0
  libxcb-xinerama0 libxcb-shape0 libxcb-xkb1 libdbus-1-3 libfontconfig1
  xvfb xauth
)
python=${PYTHON:-python3}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

find_missing() {
  missing=()
  local package
  if [ "$asked" = venv ]; then
    has_venv || missing=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
    return
  fi
  for package in "${windows[@]}"; do
    installed "$package" || missing+=("$package")
  done
}

asked=${1:-windows}
[ "${SEMSR_SYSTEM_PACKAGES:-}" = skip ] && exit 0
[ "$asked" = venv ] && has_venv && exit 0
if ! command -v dpkg-query >/dev/null; then
  if [ "$asked" = venv ]; then
    echo "$python lacks the modules venv and ensurepip; install them." >&2
    exit 1
  fi
  echo "Not a Debian system: napari needs OpenGL and the X11 client libraries, the tests Xvfb."
  exit 0
fi

find_missing
wished=()  # opens the report in a test, which is skipped without it
if [ "$asked" = windows ]; then
  command -v chromium >/dev/null || command -v google-chrome >/dev/null || wished=(chromium)
fi
[ $((${#missing[@]} + ${#wished[@]})) -eq 0 ] && exit 0

as_root=(false)
if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
fi
if [ "${as_root[0]:-}" != false ] && command -v apt-get >/dev/null; then
  echo "Installing the Debian packages ${missing[*]} ${wished[*]}"
  export DEBIAN_FRONTEND=noninteractive
  said=$("${as_root[@]}" apt-get update -q </dev/null 2>&1) || true
  for package in "${missing[@]}" "${wished[@]}"; do
    more=$("${as_root[@]}" apt-get install -q -y --no-install-recommends "$package" </dev/null 2>&1) || said+=$'\n'$more
  done
  find_missing
  [ ${#said} -le 2000 ] || said=${said: -2000}
  [ ${#missing[@]} -eq 0 ] || printf '%s\n' "$said" >&2
fi
[ ${#missing[@]} -eq 0 ] && exit 0

cat >&2 <<END
These Debian packages are missing and could not be installed here: ${missing[*]}
Ask for: apt-get install ${missing[*]}
END
[ "$asked" = venv ] ||
  echo "(SEMSR_SYSTEM_PACKAGES=skip goes on without them; panels and their tests may then fail.)" >&2
exit 1
