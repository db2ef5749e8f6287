"""Writes drawn pictures that are in no split of the `avatars` data set: python scripts/draw_avatars.py --out DIR"""

from pathlib import Path

import tyro

from facefeat_jax import avatars
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import wrote


def main(out: Path, count: int = 4, seed: int = 20_000) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        avatar = avatars.draw(seed, index)
        avatar.image.save(out / f"{index}_{'_'.join(avatar.labels.values())}.png")
    say(wrote(count, "picture", out))


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
