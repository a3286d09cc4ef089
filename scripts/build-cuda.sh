#!/usr/bin/env bash
# Builds spectemp with CUDA kernels, or with --program-only the programs that test and measure a GPU and nothing else; no GPU is
# needed for it.
# Where no toolkit is installed (nvcc on the PATH, or CUDA_HOME), one is assembled from Python wheels: 1.2 GB in
# ~/.cache/spectemp/cuda (SPECTEMP_CUDA). CUDA_COMPUTE_CAP names the GPU's generation (default 90: H100, H200).
# Takes a quarter of an hour on two cores, most of it for the kernels.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in '' | --program-only) ;; *) echo "usage: scripts/build-cuda.sh [--program-only]" >&2; exit 2 ;; esac

say() { printf 'build-cuda: %s\n' "$*" >&2; }

kit=${SPECTEMP_CUDA:-$HOME/.cache/spectemp/cuda}
wheels=(
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 'nvidia-cuda-cccl==13.0.*'
  nvidia-cuda-nvrtc==13.0.88 'nvidia-curand==10.4.0.*' 'nvidia-cublas==13.1.*'
)

# Wheels of one CUDA version meet in nvidia/cu13; the names that a linker looks for are missing there.
assemble() {
  [ -e "$kit/complete" ] && return
  say "no CUDA toolkit is installed: assembling one in $kit"
  rm -rf "$kit" && mkdir -p "$kit/wheels"
  python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$kit/wheels" "${wheels[@]}"
  for wheel in "$kit"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$kit"; done
  rm -rf "$kit/wheels"
  local lib=$kit/nvidia/cu13/lib
  for name in cublas.so.13 cublasLt.so.13 curand.so.10 nvrtc.so.13 cudart.so.13; do ln -sf "lib$name" "$lib/lib${name%.*}"; done
  ln -sfn lib "$kit/nvidia/cu13/lib64"
  chmod +x "$kit"/nvidia/cu13/bin/* "$kit"/nvidia/cu13/nvvm/bin/*
  touch "$kit/complete"
}

if [ -z "${CUDA_HOME:-}" ]; then
  if nvcc=$(command -v nvcc); then
    CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  else
    assemble
    CUDA_HOME=$kit/nvidia/cu13
  fi
fi
export CUDA_HOME CUDA_PATH=$CUDA_HOME CUDA_ROOT=$CUDA_HOME CUDA_TOOLKIT_ROOT_DIR=$CUDA_HOME
export PATH=$CUDA_HOME/bin:$PATH CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
libraries=$CUDA_HOME/lib64
[ -d "$libraries" ] || libraries=$CUDA_HOME/lib
flags="-L native=$libraries"
if ! ldconfig -p | grep 'libcuda\.so\.1' >/dev/null; then
  # The driver's library is on the machine with the GPU; here an empty one of its name is linked.
  stubs=$kit/stubs
  mkdir -p "$stubs"
  cc -shared -Wl,-soname,libcuda.so.1 -x c /dev/null -o "$stubs/libcuda.so"
  flags="$flags -L native=$stubs -C link-arg=-Wl,--unresolved-symbols=ignore-all"
  libraries=$libraries:$stubs
fi
export LIBRARY_PATH=$libraries${LIBRARY_PATH:+:$LIBRARY_PATH} RUSTFLAGS="${RUSTFLAGS:-} $flags"
# Other flags than the usual build's: with one folder for both, each would start from nothing.
target=${CARGO_TARGET_DIR:-$HOME/.cache/spectemp/target}-cuda
export CARGO_TARGET_DIR=$target

# What is linked here may define nothing, so a linker would leave it out: then no machine would load its driver's library.
driver=(-C link-arg=-Wl,--push-state,--no-as-needed -C link-arg=-lcuda -C link-arg=-Wl,--pop-state)

build() { # PACKAGE PROGRAM TARGET…
  local package=$1 program=$target/release/$2 built
  shift 2
  # A test's program has another name each time.
  built=$(cargo rustc --release --locked -p "$package" --features cuda "$@" --message-format json-render-diagnostics -- "${driver[@]}" \
    | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
  [ "$built" = "$program" ] || cp "$built" "$program"
  readelf -d "$program" | grep 'NEEDED.*libcuda\.so\.1' >/dev/null || { say "$program does not ask for libcuda.so.1"; exit 1; }
  say "built $program"
}

say "toolkit $CUDA_HOME, compute capability $CUDA_COMPUTE_CAP"
# One of the two: with other features than the other's, each compiles the kernels.
case ${1:-} in
  --program-only)
    build spectemp-model examples/gpu --example gpu
    build spectemp-model examples/gpu-tests --test it
    ;;
  *) build spectemp-cli spectemp --bin spectemp ;;
esac
say "it asks for the libraries in $CUDA_HOME/lib at run time (LD_LIBRARY_PATH, or PyTorch's nvidia/*/lib)"
