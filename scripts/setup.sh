#!/usr/bin/env bash
# Installs what is missing, and nothing when nothing is: setup.sh build|test|tidy|fuzz|oracle|mpi
# System packages (Debian 12) through apt, as root or with sudo; Python tools into .venv.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-build}

packages=(g++ cmake ninja-build ccache pkg-config ca-certificates python3
  libhwy-dev libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev
  libreadline-dev libcurl4-openssl-dev zlib1g-dev libsqlite3-dev libgtest-dev libbenchmark-dev)
# Commands that often come from elsewhere (rustup, pyenv): only asked for when absent.
command -v cargo > /dev/null && command -v rustc > /dev/null || packages+=(cargo rustc)
python3 -c 'import ensurepip, venv' 2> /dev/null || packages+=(python3-venv)
case $purpose in
  test) packages+=(clang-format mlir-19-tools git) ;;
  tidy) packages+=(clang clang-tidy git) ;;
  fuzz) packages+=(clang) ;;
  mpi) packages+=(libopenmpi-dev openmpi-bin) ;;  # for mpirun hone tune: nobody else needs it
esac

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    # Without a terminal nobody could type a password: fail at once instead of waiting.
    if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
  else
    echo "setup: needs root or sudo to run: $*" >&2
    return 1
  fi
}

install_system_packages() {
  if ! command -v apt-get > /dev/null; then
    echo "setup: no apt-get here; please see to these packages yourself: ${packages[*]}" >&2
    return 0
  fi
  local missing=()
  local package
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2> /dev/null |
    sed -n 's/^installed //p')
  for package in "${packages[@]}"; do
    grep -qxF "$package" <<< "$installed" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "==> installing system packages: ${missing[*]}"
  local options=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install -q -y \
    --no-install-recommends "${missing[@]}"
}

# A private environment, made anew when its requirements change.
install_python_tools() {
  local folder=$1 requirements=$2
  local stamp
  stamp="$folder/installed-$(sha256sum "$requirements" | cut -c1-16)"
  [ -e "$stamp" ] && return 0
  echo "==> installing Python tools of $requirements into $folder"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --retries 5 \
    -r "$requirements"
  touch "$stamp"
}

install_system_packages
case $purpose in
  test) install_python_tools .venv scripts/requirements-test.txt ;;
  oracle) install_python_tools build/oracle scripts/requirements-oracle.txt ;;
esac
