#!/usr/bin/env bash
# Runs every fuzzer: fuzz.sh SECONDS [jobs]. The kept corpus (tests/fuzz/<fuzzer>) seeds it; what is
# found new stays in build/fuzz/corpus, a crashing input in build/fuzz/crashes.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
jobs=${2:-$(nproc)}
cmake --preset fuzz
cmake --build build/fuzz -j "$jobs"
failed=()
mkdir -p build/fuzz/crashes
for source in $(find src -name '*_fuzz.cpp' | sort); do
  name=$(basename "$source" .cpp)
  mkdir -p "build/fuzz/corpus/$name" "tests/fuzz/$name"
  echo "==> $name for $seconds s"
  "build/fuzz/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/crashes/$name-" \
    "build/fuzz/corpus/$name" "tests/fuzz/$name" 2>&1 | tail -n 12 || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "==> FAILED: ${failed[*]}; inputs are in build/fuzz/crashes" >&2
  exit 1
fi
echo "==> all fuzzers found nothing"
