"""Workers of a Ray cluster, by Ray Data: each loads the model once and takes one shard after the other."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from facefeat_jax.shards._work import Done, Job, Worker
from facefeat_jax.system.errors import UserError, what_to_install

LOCAL = "local"
"""What stands for a cluster on this machine, for as long as the command runs."""

_SECONDS = 10.0


class _RayWorker:
    """What Ray Data makes one of in each of its workers."""

    def __init__(self, job: Job):
        self._job = job
        self._worker: Worker | Exception
        try:
            self._worker = Worker(job)
        except Exception as error:  # raised here, Ray would try for ever
            self._worker = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        try:
            if isinstance(self._worker, Exception):
                raise self._worker
            done = self._worker(self._job.listing.shards[int(batch["shard"][0])])
        except Exception as error:
            return {"answer": [json.dumps({"fault": _fault(error)})]}
        return {"answer": [json.dumps(vars(done))]}


def _fault(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    missing = what_to_install(error) if isinstance(error, ImportError) else None
    return missing or f"a worker failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def on_ray(job: Job, numbers: Sequence[int], address: str, workers: int | None) -> Iterator[Done]:
    """Yields what becomes of shards, each as soon as it is known.

    Args:
      job: what is to be done.
      numbers: which of its shards.
      address: of the cluster: `local`, `auto`, `host:port` or `ray://host:port`.
      workers: how many; None takes one for each GPU or, where there is none, for each machine.

    Raises:
      UserError: there is no such cluster, it has too few cores, or a worker can't use the model or the folder.
    """
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)
    _require(address)
    import ray
    import ray.data

    # Quiet: what goes wrong is reported by us, in one line.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:
        raise _absent(address, str(error)) from None
    try:
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        machines = sum(node["Alive"] for node in ray.nodes())
        number = min(workers or gpus or machines, len(numbers))
        if number > (gpus or cpus):
            has = f"{gpus} GPUs" if gpus else f"{cpus} cores"
            raise UserError(f"--num-workers {number}: the cluster {address} has {has}, and each worker takes one")
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"shard": n} for n in numbers], override_num_blocks=len(numbers)).map_batches(
            _RayWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=number),
            num_gpus=1 if gpus else None,
            num_cpus=None if gpus else 1,
        )
        for row in rows.iter_rows():
            answer = json.loads(row["answer"])
            if "fault" in answer:
                raise UserError(answer["fault"])
            yield Done(**answer)
    finally:
        ray.shutdown()


def _require(address: str) -> None:
    """Raises UserError where no cluster answers. Ray itself tries for a minute, and may end the process."""
    if address == LOCAL:
        return
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--ray {address}: give host:port, ray://host:port, auto, or nothing for this machine")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _absent(address, getattr(error, "strerror", None) or str(error)) from None
    import ray  # what follows would take its absence for the cluster's

    try:
        command = [sys.executable, "-P", "-c", f"import ray; ray.init({address!r}, log_to_driver=False)"]
        answered = subprocess.run(command, capture_output=True, timeout=3 * _SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        raise _absent(address, f"none of version {ray.__version__} with this Python answers")


def _absent(address: str, why: str) -> UserError:
    reason = " ".join(why.split())[:150]
    return UserError(
        f"no Ray cluster at {address} ({reason}); start one with `ray start --head`, or leave out the address"
    )
