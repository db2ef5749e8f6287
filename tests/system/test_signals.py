"""What Ctrl-C and SIGTERM do to a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

# Ends in order after the first signal, which takes it a minute: it is closing a file, or waiting for a thread.
_SLOW_TO_END = """
import sys, time
from facefeat_jax.system.main import run_and_exit

def work():
    try:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except Exception:
            print("an exception handler took the signal for an error", flush=True)
    finally:
        print("ending", flush=True)
        if sys.argv[1:]:
            time.sleep(60)

run_and_exit(work)
"""


def start(*arguments):
    command = [sys.executable, "-c", _SLOW_TO_END, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_a_command_in_order(number, code):
    process = start()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("ending\n", "facefeat: stopped\n", code)


def test_the_second_signal_ends_it_at_once():
    process = start("slow")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "ending\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("facefeat: stopped at once\n", 130)
    assert time.monotonic() - began < 10


def test_a_command_leaves_the_handlers_as_they_were():
    from facefeat_jax.system.main import run_main

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert run_main(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
