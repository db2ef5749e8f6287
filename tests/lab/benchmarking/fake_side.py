"""A side that only pretends: the main of a worker process in the tests."""

from __future__ import annotations

import os
import sys
import time

from facefeat_jax.benchmarking.measure import Measurement, Settings, serve
from facefeat_jax.system.errors import UserError

done: list[int] = []


def count(settings: Settings) -> Measurement:
    print("libraries print what they like")
    sys.stdout.flush()
    done.clear()

    def run():
        done.append(1)
        return {"images": settings["pictures"] * len(done), "cache": os.environ.get("FACEFEAT_CACHE", "")}

    return Measurement(run, about={"process": os.getpid()})


def refuse(settings: Settings) -> Measurement:
    raise UserError("no such\nthing here")


def fail(settings: Settings) -> Measurement:
    return Measurement(lambda: 1 // 0)


def die(settings: Settings) -> Measurement:
    os._exit(7)


def hang(settings: Settings) -> Measurement:
    time.sleep(600)
    raise AssertionError


if __name__ == "__main__":
    serve(
        {operation.__name__: operation for operation in (count, refuse, fail, die, hang)}, lambda: {"rounds": len(done)}
    )
