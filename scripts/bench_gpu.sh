#!/usr/bin/env bash
# Everything there is to measure on a GPU, in one call: the MLP and the CNN at six population sizes, every lowering, several
# unrollings, XLA's graphs around the loop, and matrix-product precision. Raw JSON, one file a measurement.
#
#   bash scripts/bench_gpu.sh [FOLDER]      default: experiments/gpu/results; PYTHON and SIZES may be set
set -uo pipefail
cd "$(dirname "$0")/.."
out="${1:-experiments/gpu/results}"
python="${PYTHON:-python}"
sizes="${SIZES:-1 16 64 256 1024 4096}"
mkdir -p "$out"
export VMAPTUNE_CACHE="${VMAPTUNE_CACHE:-$(mktemp -d)}"

# A measurement that fails leaves its message, and the rest goes on.
measure() {
    local name="$1"
    shift
    echo "== $name"
    "$python" -m vmaptune bench --json --rounds 3 "$@" >"$out/$name.json" 2>"$out/$name.err" && rm "$out/$name.err" ||
        { rm -f "$out/$name.json"; tail -n 1 "$out/$name.err"; }
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/device.csv" 2>/dev/null || true
for n in $sizes; do
    for task in mlp cnn; do
        measure "$task-$n" --task "$task" --members "$n" --no-scaling --no-overhead
    done
done
measure mlp-whole --members 1024
for lowering in grouped im2col canonical; do
    measure "cnn-1024-$lowering" --task cnn --members 1024 --no-scaling --no-overhead --set "plan.lowering=$lowering"
    measure "cnn-1024-$lowering-alone" --task cnn --members 1024 --no-scaling --no-overhead --set "plan.lowering=$lowering" --set plan.chunk=1
done
for unroll in 1 2 4; do
    for n in 64 1024; do
        measure "mlp-$n-unroll$unroll" --members "$n" --no-scaling --no-overhead --set "plan.unroll=$unroll"
        XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer=+WHILE" \
            measure "mlp-$n-unroll$unroll-while" --members "$n" --no-scaling --no-overhead --set "plan.unroll=$unroll"
    done
done
for precision in float32 tensorfloat32 bfloat16; do
    JAX_DEFAULT_MATMUL_PRECISION="$precision" measure "mlp-1024-$precision" --members 1024 --no-scaling --no-overhead
done
ls "$out"
