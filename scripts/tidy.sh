#!/usr/bin/env bash
# clang-tidy by .clang-tidy: over all of src, over the rooms that are named (tidy.sh base quant), or
# with --changed over what differs from the main branch (on it: from the commit before).
# A file takes about ten seconds: CI does rooms that everything includes.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset release > /dev/null
if [ "${1:-}" = --changed ]; then
  base=$(git merge-base HEAD origin/main 2> /dev/null || true)
  if [ -z "$base" ] || [ "$base" = "$(git rev-parse HEAD)" ]; then
    base=$(git rev-parse -q --verify HEAD~1 || true)
  fi
  if [ -z "$base" ]; then
    echo "tidy: no earlier commit to compare with; nothing to do"
    exit 0
  fi
  mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- 'src/*.cpp' | head -n 12)
else
  folders=(src)
  if [ $# -gt 0 ]; then folders=("${@/#/src/}"); fi
  mapfile -t files < <(find "${folders[@]}" -name '*.cpp' \
    ! -name '*_test.cpp' ! -name '*_bench.cpp' |
    sort)
fi
if [ ${#files[@]} -eq 0 ]; then
  echo "tidy: no C++ source changed"
  exit 0
fi
echo "==> clang-tidy on ${#files[@]} files"
# From the generated build only flags are needed, which exist after configuring.
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 1 clang-tidy --quiet -p build/release
