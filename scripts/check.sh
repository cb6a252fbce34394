#!/usr/bin/env bash
# All of CI: style, types, the README's generated parts, the site, and the README's test command. Any Python with the dev extra.
# Arguments are passed on to pytest: tests to run instead of all; the site is built without any alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python}"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy & types=$!  # a core for each
"$python" scripts/sync_readme.py --check
[ $# -gt 0 ] || NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict --site-dir "$site"
wait "$types"
"$python" -m pytest "$@"
