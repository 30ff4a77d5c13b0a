#!/usr/bin/env bash
# Builds everything, runs every test, then the style checks; fails if any of them does.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-$(nproc)}

echo "==> building hone, its tests and benchmarks"
cmake --preset release
cmake --build build/release -j "$jobs"
# On other people's machines nothing is downloaded that was not asked for; CI asks.
if [ "${CI:-}" = true ]; then scripts/models.sh; fi

failed=()
echo "==> tests"
# One at a time: some measure memory and time, and the models' tests use every core by themselves.
ctest --test-dir build/release --output-on-failure --timeout 900 || failed+=(ctest)

echo "==> style"
scripts/style.sh check || failed+=(style)

if [ ${#failed[@]} -gt 0 ]; then
  echo "==> FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "==> all tests and checks passed"
