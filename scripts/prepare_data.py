"""Prepares the three data sets of the baseline: python scripts/prepare_data.py --downloads DIR [--data-dir DIR]

DIR holds a folder or zip of each (fairface, glasses, apparel); it is `facefeat prepare` for all of them.
"""

from facefeat_jax.cli import command

command("prepare", "fairface", "glasses", "apparel")
