#!/usr/bin/env bash
# Benchmarks: bench.sh [jobs] measures; bench.sh smoke only shows in seconds that each still runs.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/release
options=()
if [ "${1:-}" = smoke ]; then
  options=(--benchmark_min_time=0.001)
else
  cmake --build $build -j "${1:-$(nproc)}"
fi

shopt -s nullglob
for program in "$build"/hone_*_bench; do
  echo "==> $(basename "$program")"
  status=0
  # The smoke run ends a long list of benchmarks early (124): what ran, ran.
  timeout "$([ "${1:-}" = smoke ] && echo 40 || echo 3600)" "$program" "${options[@]}" || status=$?
  if [ $status -ne 0 ] && ! { [ $status -eq 124 ] && [ "${1:-}" = smoke ]; }; then
    echo "bench: $program ended with status $status" >&2
    exit 1
  fi
done

if "$build/hone" bench --help > /dev/null 2>&1; then
  model=smollm2-135m-instruct-q4_1
  cache=${HONE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hone}
  if [ ! -e "$cache/models/$model.gguf" ]; then
    echo "==> no $model in the cache; its benchmark is left out ('hone fetch $model' gets it)"
  elif [ "${1:-}" = smoke ]; then
    echo "==> hone bench run (smoke)"
    "$build/hone" bench run "$model" --prompt 32 --generate 8 --sequences 2 --member-rank 2 --json
    echo "==> hone bench tune (smoke)"
    "$build/hone" bench tune "$model" --batch 1 --length 32 --steps 1 --json
  else
    echo "==> hone bench run"
    "$build/hone" bench run "$model" --prompt 256 --generate 64
    echo "==> hone bench tune"
    "$build/hone" bench tune "$model" --method lora --batch 4 --length 256 --steps 4 --profile
  fi
fi
