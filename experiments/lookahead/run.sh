#!/usr/bin/env bash
# Population-based training with and without a look ahead, and its rivals, at equal member-steps. About ten minutes a task.
# usage: run.sh teacher|digits OUT [SEEDS]
set -euo pipefail
cd "$(dirname "$0")"
task="$1" out="$2" seeds="${3:-12}"
cosine="schedule.name=cosine"
# Tuned by 256 random cosines of 2,000 steps with seed 100, which is eight times the budget of an arm.
case "$task" in
    teacher) set=() tuned="optimizer.learning_rate=0.1446,optimizer.weight_decay=0.01576" ;;
    digits) set=(--set task.name=digits --set 'task.hidden=[64]') tuned="optimizer.learning_rate=0.7273,optimizer.weight_decay=0.0004718" ;;
esac
vmaptune compare config.toml "${set[@]}" --seeds "$seeds" --budget steps=64000 --out "$out" \
    --arm "pbt:" \
    --arm "pbt_final_anneal:fitness.final_anneal=400" \
    --arm "pbt_lookahead:population.segment_steps=150,fitness.lookahead.steps=50" \
    --arm "pbt_lookahead_75_25:population.segment_steps=75,population.generations=20,fitness.lookahead.steps=25" \
    --arm "pbt_lookahead_300_100:population.segment_steps=300,population.generations=5,fitness.lookahead.steps=100" \
    --arm "pbt_cosine:$cosine" \
    --arm "random_cosine:search.method=random,$cosine" \
    --arm "asha_tpe_cosine:search.method=tpe,search.trials=1000,search.stop=asha,population.size=8,$cosine" \
    --arm "tuned_cosine:search.method=fixed,$cosine,$tuned"
