#!/usr/bin/env bash
# Runs the whole test suite: with cargo-nextest where it is installed, else with cargo's own runner.
set -euo pipefail
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace "$@"
else
  cargo test --locked --workspace "$@"
fi
