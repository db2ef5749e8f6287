#!/usr/bin/env bash
# Fills in the GPU rows of docs/benchmarks, in two calls on a machine with one GPU and all packages:
#
#     bash scripts/lab/gpu_rows.sh first OUT      # eight minutes: jobs cold and warm, steps, PyTorch; the start of `best`
#     bash scripts/lab/gpu_rows.sh second OUT     # four minutes: what shortens the start, then the tests marked gpu
#
# Everything lies in OUT as soon as it is measured, so either call may be cut off. Rehearse it on CPU first: PLAN=rehearsal.
set -u
call=$1 out=$2 data=${DATA:-$2/data}
mkdir -p "$out"
[ -d "$data/avatars" ] || timeout 60 python -m facefeat_jax.cli prepare avatars --data-dir "$data" 2>&1 | tail -2
start() { timeout "$1" python scripts/lab/measure_start.py "${@:2}" --data-dir "$data" 2>"$out/$call-start.log"; }
case $call in
first)
    timeout 400 python scripts/benchmark.py run --plan "${PLAN:-gpu}" --budget 380 --made "$out/made" --out "$out/benchmark" >"$out/benchmark.log" 2>&1
    start 75 warm --recipe best --rounds 1 --options='--sources avatars --image-size 224' | tee "$out/start-best.txt"
    ;;
second)
    start 120 settings --recipe fast --options=--smoke --whole --rounds 1 --budget 110 | tee "$out/start-settings.txt"
    XLA_FLAGS=--xla_gpu_deterministic_ops=true timeout 110 python -m pytest -n 0 -q -m gpu 2>&1 | tee "$out/tests.txt"
    ;;
esac
