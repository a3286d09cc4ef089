#!/usr/bin/env bash
# The cargo features that this machine can have.
set -eu
if pkg-config --exists openblas 2>/dev/null; then echo "--features openblas"; fi
