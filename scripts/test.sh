#!/usr/bin/env bash
# Runs the whole test suite over a private Postgres and Redis: with cargo-nextest where it is installed, else with
# cargo's own runner.
set -euo pipefail
cd "$(dirname "$0")/.."
services=$(scripts/services.sh start)
eval "$services"
trap 'scripts/services.sh stop' EXIT
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace "$@"
else
  cargo test --locked --workspace "$@"
fi
