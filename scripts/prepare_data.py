"""Prepares the three data sets of the baseline: python scripts/prepare_data.py --downloads DIR [--data-dir DIR]

DIR holds a folder or zip for each: DIR/fairface, DIR/glasses, DIR/apparel.
"""

from pathlib import Path

import tyro

from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.prepare import prepare
from facefeat_jax.errors import run_and_exit


def main(downloads: Path, data_dir: Path | None = None) -> None:
    for source in ("fairface", "glasses", "apparel"):
        print(prepare(source, downloads / source, data_dir or default_data_dir()))


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
