#!/usr/bin/env bash
# Installs what the build needs and is missing (Debian/Ubuntu packages), and says plainly what it cannot install.
# Prints nothing where all is there. Safe to run again. With --tests also what only the tests need.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

# Package, and a check that shows whether it is there already.
missing=()
need() { # need PACKAGE COMMAND...
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

need pkg-config command -v pkg-config
export PKG_CONFIG_PATH=${PKG_CONFIG_PATH:-}
for lib in avcodec avformat avutil swscale swresample; do
  need "lib$lib-dev" pkg-config --exists "lib$lib"
done
need ffmpeg command -v ffmpeg
need clang command -v clang
need libclang-dev sh -c 'ls /usr/lib/llvm-*/lib/libclang.so /usr/lib/llvm-*/lib/libclang-*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -q .'
need gcc command -v cc
need make command -v make
if [ "${1:-}" = --tests ]; then # a private Postgres and Redis
  need postgresql sh -c 'ls /usr/lib/postgresql/*/bin/initdb || command -v initdb'
  need redis-server command -v redis-server
fi

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    say "this script knows apt-get only. Please install the equivalents of: ${missing[*]}"
    exit 1
  fi
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { say "please install as root: apt-get install ${missing[*]}"; exit 1; }
    sudo=(sudo)
  fi
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq || say "apt-get update failed, going on with the lists that are there"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    || { say "apt-get could not install: ${missing[*]}"; exit 1; }
fi

if ! command -v cargo >/dev/null 2>&1; then
  say "Rust is missing. Install the stable toolchain (1.95 or newer) with rustup, see https://rustup.rs, then run this again."
  exit 1
fi
version=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' 1.95.0 "$version" | sort -V | head -n1)" != 1.95.0 ]; then
  say "Rust $version is too old: 1.95 or newer is needed (rustup update)."
  exit 1
fi
