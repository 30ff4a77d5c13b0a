#!/usr/bin/env bash
# Tests under sanitizers: sanitize.sh asan|tsan [jobs]
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
jobs=${2:-$(nproc)}
echo "==> building with $preset"
cmake --preset "$preset"
if [ "$preset" = tsan ]; then
  # Only code with threads has something to show, and everything else would take an hour.
  cmake --build build/tsan -j "$jobs" --target hone_base_test
  # Randomized addresses can fall where this sanitizer keeps its shadow on kernels
  # with much randomness; setarch turns it off.
  setarch -R build/tsan/hone_base_test --gtest_filter='*Threads*'
else
  cmake --build "build/$preset" -j "$jobs"
  export UBSAN_OPTIONS=print_stacktrace=1
  ctest --test-dir "build/$preset" --output-on-failure --timeout 1800
fi
