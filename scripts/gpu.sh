#!/usr/bin/env bash
# Checks the model on this machine's GPU against the golden files, runs its tests there, and measures it:
# scripts/gpu.sh [check|bench] [ARGUMENT…]. Where there is no NVIDIA driver or no GPU it says so and ends with 3.
# SPECTEMP_GPU_PROGRAM names a built program (examples/gpu of scripts/build-cuda.sh --program-only; its tests, gpu-tests, lie
# beside it), which needs nothing else of this checkout than the golden files and models/demo; without it one is built first.
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
# Requests together, prompts that begin alike, guesses: each as alone, afresh, without.
tests=(
  batching::a_batch_of_mixed_lengths batching::target_and_draft batching::prompts_that_begin_alike batching::a_second_question
  batching::cancellation_in_the_middle generation::what_is_reused generation::an_appended_turn generation::small_chunks
  loops::later_rounds speculation:: turns::every_golden_turn
)

check() {
  "$program" check crates/model/tests/data
  CARGO_MANIFEST_DIR=$PWD/crates/model SPECTEMP_TEST_DEVICE=${SPECTEMP_TEST_DEVICE:-cuda:0} "$program-tests" "${tests[@]}"
}

case ${1:-check} in
  check) check ;;
  bench) exec "$program" bench models/demo "${@:2}" ;;
  *) exec "$program" "$@" ;;
esac
