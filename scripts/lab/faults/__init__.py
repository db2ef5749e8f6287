"""Fault campaigns: what goes wrong on shared machines and in downloads, done on purpose and counted.

    python scripts/lab/run_faults.py run --out docs/benchmarks/faults
    python scripts/lab/run_faults.py report docs/benchmarks/faults/*.json --out docs/reliability.md

A campaign is a module with `run(work, count=..., seed=...)`, which returns a `Tally`. Everything that it does is drawn
from the seed, so a failure can be made again.
"""
