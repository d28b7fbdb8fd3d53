#!/usr/bin/env bash
# Debian packages that napari's window, its virtual screen and the report test need.
# Installs what is missing when it may, else names it and fails.
# SEMSR_SYSTEM_PACKAGES=skip leaves the machine alone.
set -euo pipefail

needed=(
  libegl1 libgl1 libopengl0 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-cursor0
  libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0
  libxcb-xinerama0 libxcb-shape0 libxcb-xkb1 libdbus-1-3 libfontconfig1
  xvfb xauth
)

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

find_missing() {
  missing=()
  local package
  for package in "${needed[@]}"; do
    installed "$package" || missing+=("$package")
  done
  if ! "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3-venv)
  fi
}

[ "${SEMSR_SYSTEM_PACKAGES:-}" = skip ] && exit 0
if ! command -v dpkg-query >/dev/null; then
  echo "Not a Debian system: napari needs OpenGL and the X11 client libraries, the tests Xvfb."
  exit 0
fi

find_missing
wished=()  # opens the report in a test, which is skipped without it
command -v chromium >/dev/null || command -v google-chrome >/dev/null || wished=(chromium)
[ $((${#missing[@]} + ${#wished[@]})) -eq 0 ] && exit 0

as_root=(false)
if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
fi
if [ "${as_root[0]:-}" != false ] && command -v apt-get >/dev/null; then
  echo "Installing ${missing[*]} ${wished[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -q </dev/null || true
  for package in "${missing[@]}" "${wished[@]}"; do
    "${as_root[@]}" apt-get install -q -y --no-install-recommends "$package" </dev/null || true
  done
  find_missing
fi
[ ${#missing[@]} -eq 0 ] && exit 0

cat >&2 <<END
These Debian packages are missing and could not be installed here: ${missing[*]}
Ask for: apt-get install ${missing[*]}
(SEMSR_SYSTEM_PACKAGES=skip goes on without them; panels and their tests may then fail.)
END
exit 1
