#!/usr/bin/env bash
# Checks the model on this machine's GPU against the golden files, and measures it: scripts/gpu.sh [check|bench] [ARGUMENT…].
# Where there is no NVIDIA driver it says so and ends with 3. SPECTEMP_GPU_PROGRAM names a built program (examples/gpu of
# scripts/build-cuda.sh), which needs nothing else of this checkout than the golden files; without it one is built first.
set -euo pipefail
cd "$(dirname "$0")/.."

has_driver() {
  local folder folders
  ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1' >/dev/null && return
  IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
  for folder in "${folders[@]}"; do [ ! -e "$folder/libcuda.so.1" ] || return 0; done
  return 1
}

if ! has_driver; then
  echo "gpu: found no device: this machine has no NVIDIA driver (libcuda.so.1); nothing was run" >&2
  exit 3
fi
program=${SPECTEMP_GPU_PROGRAM:-}
if [ -z "$program" ]; then
  scripts/build-cuda.sh --program-only
  program=${CARGO_TARGET_DIR:-$HOME/.cache/spectemp/target}-cuda/release/examples/gpu
fi
# The toolkit that build-cuda.sh assembled, or PyTorch's libraries, where nothing else names them.
kit=${SPECTEMP_CUDA:-$HOME/.cache/spectemp/cuda}/nvidia/cu13/lib
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$kit
case ${1:-check} in
  check) exec "$program" check crates/model/tests/data ;;
  bench) exec "$program" bench models/demo "${@:2}" ;;
  *) exec "$program" "$@" ;;
esac
