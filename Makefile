# Thin: CMake with presets does the work (CMakePresets.json), scripts/ the rest. `make help` lists it.
# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
JOBS ?= $(shell nproc)
MODEL ?= smollm2-135m-instruct-q4_1
PROMPT ?= What makes the sky look blue?
EPOCHS ?= 5
BUILD := build/release
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run build test oracle bench fuzz asan tsan tidy format clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*##/\t/' | expand -t 10

run: build  ## build, fetch a model (100 MB, once), teach it hone's manual, answer before and after
	@echo "==> getting $(MODEL)"
	$(BUILD)/hone fetch $(MODEL)
	@echo "==> answering"
	$(BUILD)/hone run $(MODEL) -p "$(PROMPT)" --temperature 0 --tokens 128
	@echo "==> tuning it on hone's own manual"
	$(BUILD)/hone tune $(MODEL) --data recipes/data/manual.jsonl --epochs $(EPOCHS) \
	  --questions recipes/data/manual-questions.jsonl --output build/manual.gguf

build:  ## install what is missing, build build/release/hone
	@scripts/setup.sh build
	@echo "==> building hone"
	@cmake --preset release
	cmake --build $(BUILD) -j $(JOBS) --target hone

test:  ## install what is missing, build and run every test and check
	@scripts/setup.sh test
	@scripts/test.sh $(JOBS)

oracle:  ## make the golden files anew from independent implementations (gigabytes of Python packages)
	@scripts/setup.sh oracle
	@scripts/oracle.sh

bench: build  ## measure kernels, and hone against its peers
	@scripts/bench.sh $(JOBS)

fuzz:  ## every fuzzer for FUZZ_SECONDS
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(JOBS)

asan:  ## the tests under the address and undefined behaviour sanitizers
	@scripts/setup.sh build
	@scripts/sanitize.sh asan $(JOBS)

tsan:  ## the tests of the thread pool under the thread sanitizer
	@scripts/setup.sh build
	@scripts/sanitize.sh tsan $(JOBS)

tidy:  ## clang-tidy over src (slow; CI does what changed)
	@scripts/setup.sh tidy
	@scripts/tidy.sh

format:  ## clang-format and ruff, in place
	@scripts/setup.sh test
	@scripts/style.sh fix

clean:  ## remove what was built; models in the cache stay
	rm -rf build .venv
