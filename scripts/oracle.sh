#!/usr/bin/env bash
# Makes the golden files of the tests anew: tests/golden/<subject>/make.py, each documented in itself.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
for script in tests/golden/*/make.py; do
  echo "==> $script"
  build/oracle/bin/python "$script"
done
git --no-pager diff --stat -- tests/golden || true
