# `make demo` and `make test` are all a new user needs. Both install what is missing first (scripts/setup.sh).

# Builds are kept outside the checkout, so that a fresh clone does not start from nothing.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/spectemp/target
SHELL := /bin/bash

.PHONY: demo test crash build build-cuda gpu setup lint deny doc fmt install

setup:
	@scripts/setup.sh

# The program, optimised, as users run it.
build: setup
	cargo build --release --locked -p spectemp-cli
	@echo "built $(CARGO_TARGET_DIR)/release/spectemp"

# The same with NVIDIA kernels; assembles a CUDA toolkit where none is.
build-cuda: setup
	@scripts/build-cuda.sh

# Golden files and tests on this machine's GPU; ends with 3 where there is none. `make gpu ARGS="bench 7b 3b"` measures.
gpu:
	@scripts/gpu.sh $(ARGS)

# Generates videos, asks questions about them and prints how well they were answered.
demo: build
	"$(CARGO_TARGET_DIR)/release/spectemp" demo $(ARGS)

# Everything that is tested. Needs no GPU, no network beyond the package registries, no Python.
test:
	@scripts/setup.sh --tests
	scripts/test.sh $(ARGS)

# The crash test at full size: 500 jobs, 100 kills; minutes. Writes bench/results/crash.json.
crash:
	@scripts/setup.sh --tests
	SPECTEMP_CRASH_REPORT="$(CURDIR)/bench/results/crash.json" scripts/test.sh --no-capture --run-ignored only -E 'test(a_hundred_kills)'

# Puts `spectemp` on the PATH (~/.cargo/bin).
install: setup
	cargo install --locked --path crates/cli

fmt:
	cargo fmt --all

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

deny:
	scripts/deny.sh
