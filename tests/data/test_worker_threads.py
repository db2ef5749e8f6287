"""Threads inside a decoder hold up nobody who was asked to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from facefeat_jax.data._worker_threads import worker_threads

SLOW = """
import sys, time
from pathlib import Path
from PIL import ImageFile
from facefeat_jax import cli
from facefeat_jax.system.main import run_and_exit

from facefeat_jax.models.registry import ARCHITECTURES, Architecture
from facefeat_jax.models.resnet import ResNet

# As the fixture `small_trunk`.
build = lambda **options: ResNet((1, 1, 1, 1), width=8, **options)
ARCHITECTURES["small"] = Architecture("small", build, 64, ResNet.STAGES, ResNet.LAST, "tests")
load = ImageFile.ImageFile.load

def slow(self):
    Path(sys.argv[1]).touch()
    time.sleep(60)
    return load(self)

ImageFile.ImageFile.load = slow
run_and_exit(lambda: cli.main(sys.argv[2:]))
"""


def test_the_end_is_waited_for_unless_an_exception_comes_first():
    release, done = threading.Event(), []

    def work() -> None:
        release.wait(30)
        done.append(None)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), worker_threads(1) as pool:
        queued = [pool.submit(work) for _ in range(3)]
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5 and not done and all(one.cancelled() for one in queued[1:])
    release.set()
    with worker_threads(2) as pool:
        pool.submit(lambda: (time.sleep(0.05), done.append(None)))
    assert done


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "prepare"])
def test_sigterm_ends_a_command_whose_threads_are_inside_a_decoder(command, picture, tmp_path, trained_run):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for number in range(4):
            (tmp_path / split / f"{number}.jpg").write_bytes(picture(number))
        rows = "".join(f"{split}/{number}.jpg,3-9,{('Male', 'Female')[number % 2]},Black\n" for number in range(4))
        (tmp_path / f"fairface_label_{split}.csv").write_text("file,age,gender,race\n" + rows)
    arguments = {
        "predict": [trained_run, *sorted(tmp_path.glob("train/*.jpg"))],
        "prepare": ["fairface", "--from", tmp_path, "--data-dir", tmp_path / "data"],
    }[command]
    decoding = tmp_path / "decoding"
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, decoding, command, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        while not decoding.exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        started = time.monotonic()
        _, err = child.communicate(timeout=30)
        assert time.monotonic() - started < 5, err
        assert child.returncode == 143 and "Traceback" not in err, err
    finally:
        child.kill()
