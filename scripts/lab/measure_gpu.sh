#!/usr/bin/env bash
# Fills in the figures of a GPU, in calls of a few minutes; every round is on disk in OUT when it ends, so that each call
# may be cut off.
#
#   bash scripts/lab/measure_gpu.sh first   OUT   # 8 minutes: whole jobs cold and warm, PyTorch; the start of `best`
#   bash scripts/lab/measure_gpu.sh second  OUT   # 4 minutes: what shortens the start, then the tests marked gpu
#   bash scripts/lab/measure_gpu.sh rest    OUT   # 4 minutes: the cases of the benchmark that `first` did not finish
#   bash scripts/lab/measure_gpu.sh roofs   OUT   # 4 minutes: both roofs, whole steps first, then the groups of layers
#   bash scripts/lab/measure_gpu.sh prepare OUT   # 2 minutes: prepare against decoding, on all cores
#
# PYTHON names the interpreter. On a CPU, PLAN=rehearsal tries the first call. OUT/made holds the pictures, for another
# call on the same machine; without it they are made again.
# A call that was cut off: python scripts/benchmark.py report OUT/first/rounds.jsonl OUT/rest/rounds.jsonl
set -euo pipefail
python=${PYTHON:-python}
part=${1:?first, second, rest, roofs or prepare}
out=${2:?a folder for the results}
mkdir -p "$out"

start() { # SECONDS ARGUMENTS...: the start of a training, for so long at most
  [ -d "$out/data/avatars" ] || "$python" -m facefeat_jax.cli prepare avatars --data-dir "$out/data"
  timeout "$1" "$python" scripts/lab/measure_start.py "${@:2}" --data-dir "$out/data" | tee "$out/$part-start.txt" || true
}

case $part in
  first)
    "$python" scripts/benchmark.py run --plan "${PLAN:-gpu}" --budget 380 --out "$out/first" --made "$out/made" || true
    start 75 warm --recipe best --rounds 1 --options='--sources avatars --image-size 224'
    ;;
  second)
    start 120 settings --recipe fast --options=--smoke --whole --rounds 1 --budget 110
    XLA_FLAGS=--xla_gpu_deterministic_ops=true timeout 110 "$python" -m pytest -n 0 -q -m gpu | tee "$out/tests.txt"
    ;;
  rest)
    exec "$python" scripts/benchmark.py run --plan gpu --budget 230 --out "$out/rest" --made "$out/made" \
      --done "$out/first/rounds.jsonl"
    ;;
  roofs)
    "$python" scripts/lab/measure_roofs.py --no-groups --batches 1024 256 32 512 128 --out "$out/roofs.jsonl"
    exec "$python" scripts/lab/measure_roofs.py --batches 256 --out "$out/groups.jsonl"
    ;;
  prepare) exec "$python" scripts/lab/measure_prepare.py --pictures 50000 --rounds 3 --out "$out/prepare.md" ;;
  *) echo "unknown part $part: first, second, rest, roofs or prepare" >&2; exit 2 ;;
esac
