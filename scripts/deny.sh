#!/usr/bin/env bash
# Licences, bans and sources by cargo-deny; advisories only where their database can be reached.
set -euo pipefail
tools=${SPECTEMP_TOOLS:-$HOME/.cache/spectemp/tools}
export PATH="$tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null 2>&1; then
  echo "deny: installing cargo-deny into $tools" >&2
  CARGO_TARGET_DIR="$tools/target" cargo install --quiet --locked cargo-deny --root "$tools"
  rm -rf "$tools/target"
fi
cargo deny --locked check --hide-inclusion-graph licenses bans sources
if out=$(timeout 60 cargo deny --locked check advisories 2>&1); then
  echo "advisories ok"
elif grep -qiE 'failed to (fetch|clone|load|acquire|open)|unable to fetch|timed out|io error|network' <<<"$out" || [ -z "$out" ]; then
  echo "advisories: NOT RUN, their database cannot be reached from here"
else
  printf '%s\n' "$out"
  exit 1
fi
