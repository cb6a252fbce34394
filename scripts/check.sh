#!/usr/bin/env bash
# All of CI: style, types, the README's generated parts, and the README's test command. Any Python with the dev extra.
# Arguments are passed on to pytest: tests to run instead of all.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python}"

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" scripts/sync_readme.py --check
"$python" -m pytest "$@"
