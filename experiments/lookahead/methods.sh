#!/usr/bin/env bash
# Every method that evolves the population, on the noisy teacher, with a final anneal, at equal member-steps.
# usage: methods.sh OUT [SEEDS]
set -euo pipefail
cd "$(dirname "$0")"
arms=()
for method in truncation tournament multifrequency differential pb2 selection_only fixed; do
    arms+=(--arm "$method:search.method=$method")
done
vmaptune compare config.toml --set fitness.final_anneal=400 --seeds "${2:-12}" --budget steps=64000 --out "$1" "${arms[@]}"
