#!/usr/bin/env bash
# Fills in the figures of a GPU, most wanted first; every round is on disk when it ends, in OUT.
#
#   bash scripts/lab/measure_gpu.sh first  OUT    # 8 minutes: our whole job cold and warm, step and forward beside PyTorch
#   bash scripts/lab/measure_gpu.sh second OUT    # 4 minutes: what the first did not finish
#   bash scripts/lab/measure_gpu.sh roofs  OUT    # 4 minutes: both roofs, whole steps first, then the groups of layers
#   bash scripts/lab/measure_gpu.sh prepare OUT   # 2 minutes: prepare against decoding, all cores
#
# PYTHON names the interpreter. OUT/made holds the pictures, for a second call on the same machine; without it they are
# made again. Cut off: python scripts/benchmark.py report OUT/first/rounds.jsonl OUT/second/rounds.jsonl
set -euo pipefail
python=${PYTHON:-python}
part=${1:?first, second, roofs or prepare}
out=${2:?a folder for the results}
mkdir -p "$out"
case $part in
  first) exec "$python" scripts/benchmark.py run --plan gpu --budget 470 --out "$out/first" --made "$out/made" ;;
  second)
    exec "$python" scripts/benchmark.py run --plan gpu --budget 230 --out "$out/second" --made "$out/made" \
      --done "$out/first/rounds.jsonl"
    ;;
  roofs)
    "$python" scripts/lab/measure_roofs.py --no-groups --batches 1024 256 32 512 128 --out "$out/roofs.jsonl"
    exec "$python" scripts/lab/measure_roofs.py --batches 256 --out "$out/groups.jsonl"
    ;;
  prepare) exec "$python" scripts/lab/measure_prepare.py --pictures 50000 --rounds 3 --out "$out/prepare.md" ;;
  *) echo "unknown part $part: first, second, roofs or prepare" >&2; exit 2 ;;
esac
