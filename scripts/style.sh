#!/usr/bin/env bash
# Formatting and lint of C++ and Python: style.sh check|fix
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-check}

folders=()
for folder in src tests tiny bench python recipes scripts; do
  [ -d "$folder" ] && folders+=("$folder")
done
mapfile -t sources < <(find "${folders[@]}" -type f \
  \( -name '*.cpp' -o -name '*.h' -o -name '*.inl' \) | sort)
status=0
if [ "$mode" = fix ]; then
  clang-format -i "${sources[@]}"
  .venv/bin/ruff check --fix "${folders[@]}" || status=1
  .venv/bin/ruff format "${folders[@]}" || status=1
else
  clang-format --dry-run --Werror "${sources[@]}" || status=1
  .venv/bin/ruff check "${folders[@]}" || status=1
  .venv/bin/ruff format --check "${folders[@]}" || status=1
  mapfile -t scripts < <(find "${folders[@]}" -name '*.py' | sort)
  if [ ${#scripts[@]} -gt 0 ]; then .venv/bin/mypy "${scripts[@]}" || status=1; fi
fi
[ $status -eq 0 ] || echo "style: run 'make format', then see what is left" >&2
exit $status
