#!/usr/bin/env bash
# Makes the golden files of the tests anew: each tests/golden/<subject>/make.py says what it makes.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
for script in tests/golden/*/make.py; do
  echo "==> $script"
  build/oracle/bin/python "$script"
done
git --no-pager diff --stat -- tests/golden || true
