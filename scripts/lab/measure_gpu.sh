#!/usr/bin/env bash
# Fills in the figures of a GPU, in calls of a few minutes; every round is on disk in OUT when it ends, so that each call
# may be cut off.
#
#   bash scripts/lab/measure_gpu.sh first   OUT   # 8 minutes: whole jobs cold and warm, PyTorch; the start of `best`
#   bash scripts/lab/measure_gpu.sh second  OUT   # 4 minutes: what shortens the start, then the tests marked gpu
#   bash scripts/lab/measure_gpu.sh rest    OUT   # 4 minutes: the cases of the benchmark that `first` did not finish
#   bash scripts/lab/measure_gpu.sh roofs   OUT   # 4 minutes: both roofs, whole steps first, then the groups of layers
#   bash scripts/lab/measure_gpu.sh prepare OUT   # 3 minutes: prepare against decoding, on all cores
#
# PYTHON names the interpreter. With PLAN=rehearsal each part does the same in small, on a CPU. OUT/made holds the
# pictures, for another call on the same machine; without it they are made again.
# A call that was cut off: python scripts/benchmark.py report OUT/first/rounds.jsonl OUT/rest/rounds.jsonl
set -uo pipefail
python=${PYTHON:-python}
plan=${PLAN:-gpu}
part=${1:?first, second, rest, roofs or prepare}
out=${2:?a folder for the results}
if [ "$plan" = rehearsal ]; then
  size=32 batches=8 of_groups=8 pictures=600 smoke=--smoke
  roofs=(--dtype float32 --size 32 --matmul 256 --copy-mib 16)
else
  size=224 batches="1024 256 32 512 128" of_groups=256 pictures=53671 smoke=
  roofs=()
fi
declare -A limits=([first]=470 [second]=230 [rest]=230 [roofs]=230 [prepare]=170)
limit=${limits[$part]:?unknown part $part: first, second, rest, roofs or prepare}
mkdir -p "$out"
code=0

run() { # SECONDS COMMAND...: runs it so long at most, and no longer than the part may take
  local most=$((limit - SECONDS)) code=0
  [ "$1" -ge "$most" ] || most=$1
  [ "$most" -gt 0 ] || { echo "measure_gpu: no time is left for ${*:2}" >&2; return 1; }
  timeout --kill-after=5 "$most" "${@:2}" || { code=$?; echo "measure_gpu: exit code $code of ${*:2}" >&2; }
  return $code
}

start() { # SECONDS ARGUMENTS...: the start of a training
  [ -d "$out/data/avatars" ] || run 60 "$python" -m facefeat_jax.cli prepare avatars --data-dir "$out/data" >&2
  run "$1" "$python" scripts/lab/measure_start.py "${@:2}" --data-dir "$out/data" | tee "$out/$part-start.txt"
}

# What is measured before a part fails is worth having, and so is what comes after it.
case $part in
  first)
    run 400 "$python" scripts/benchmark.py run --plan "$plan" --budget 380 --out "$out/first" --made "$out/made" || code=1
    start 75 warm --recipe best --rounds 1 --options="--sources avatars --image-size $size $smoke" || code=1
    ;;
  second)
    start 120 settings --recipe fast --options=--smoke --whole --rounds 1 --budget 110 || code=1
    export XLA_FLAGS=--xla_gpu_deterministic_ops=true
    run 110 "$python" -m pytest -n 0 -q -m gpu | tee "$out/tests.txt" || code=1
    ;;
  rest)
    run 230 "$python" scripts/benchmark.py run --plan "$plan" --budget 215 --out "$out/rest" --made "$out/made" \
      --done "$out/first/rounds.jsonl" || code=1
    ;;
  roofs)
    run 150 "$python" scripts/lab/measure_roofs.py --no-groups --batches $batches "${roofs[@]}" --out "$out/roofs.jsonl" ||
      code=1
    run 150 "$python" scripts/lab/measure_roofs.py --batches $of_groups "${roofs[@]}" --out "$out/groups.jsonl" || code=1
    ;;
  prepare)
    run 170 "$python" scripts/lab/measure_prepare.py --pictures $pictures --rounds 3 --out "$out/prepare.md" || code=1
    ;;
esac
exit $code
