#!/usr/bin/env bash
# Fetches the models that some tests use. Without them those tests skip, so that a machine without
# a network can test the rest: failing to get them is said and is no error.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
hone=build/release/hone
for model in smollm2-135m-instruct-q4_1 gemma-3-270m-q4_k_m; do
  echo "==> fetching $model for the tests"
  if ! timeout 900 "$hone" fetch "$model" < /dev/null; then
    echo "==> $model could not be had; the tests that use it will skip" >&2
  fi
done
