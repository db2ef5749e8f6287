"""Starting several processes and watching them, with small programs in their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from facefeat_jax.system.errors import UserError
from facefeat_jax.training import launch as launcher
from facefeat_jax.training.launch import Hosts, launch

_NUMBER = "import os, signal, sys, time; number = int(os.environ['JAX_PROCESS_ID']); "


def program(text):
    return [sys.executable, "-c", _NUMBER + text]


def test_each_process_is_told_who_takes_part(tmp_path):
    write = f"open(f'{tmp_path}/{{number}}', 'w').write(' '.join([*sys.argv[1:], "
    write += (
        "os.environ['JAX_NUM_PROCESSES'], os.environ['JAX_LOCAL_DEVICE_IDS'], os.environ['JAX_COORDINATOR_ADDRESS']]))"
    )
    hosts = Hosts(2, 4, first=2, coordinator="first:1234", devices_each=2)
    assert launch(["avatars"], hosts, heartbeat_s=7, command=program(write)) == 0
    for number, devices in ((2, "0,1"), (3, "2,3")):
        told = (tmp_path / str(number)).read_text()
        assert told == f"avatars --distributed --heartbeat-s 7 4 {devices} first:1234"


def test_it_says_which_process_died_and_how_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(launcher, "_GRACE_S", 0.5)
    dies = program("time.sleep(60) if number != 1 else os.kill(os.getpid(), signal.SIGKILL)")
    began = time.monotonic()
    arguments = ["avatars", "--run", "runs/a run", "--overwrite"]
    assert launch(arguments, Hosts(3, 3), heartbeat_s=1, command=dies) == 1
    assert 1.5 < time.monotonic() - began < 30  # the heartbeat, and some grace
    said = capsys.readouterr().err.strip().splitlines()
    assert "process 1 of 3 was killed by SIGKILL" in said[0]
    assert "process 1 of 3 was killed by SIGKILL" in said[1]
    assert said[1].endswith("facefeat launch 3 -- avatars --run 'runs/a run' --resume")


def test_how_to_go_on_names_all_that_the_launcher_was_told():
    hosts = Hosts(2, 4, first=2, coordinator="first:1234", devices_each=4)
    told = ["2", "--total", "4", "--first", "2", "--coordinator", "first:1234", "--devices-each", "4"]
    assert hosts.arguments() == told
    assert Hosts(3, 3).arguments() == ["3"]


def test_an_error_that_a_process_has_told_of_is_its_answer(capsys):
    assert launch([], Hosts(2, 2), heartbeat_s=1, command=program("sys.exit(2 if number == 0 else 134)")) == 2
    assert "To continue" not in capsys.readouterr().err


def test_a_signal_reaches_all_of_them_once(tmp_path):
    child = f"signal.signal(signal.SIGTERM, lambda *_: (open('{tmp_path}/stopped', 'a').write('x'), sys.exit(143))); "
    child += f"open(f'{tmp_path}/{{number}}', 'w'); time.sleep(60)"
    parent = "from facefeat_jax.training.launch import *; import sys; "
    parent += f"sys.exit(launch([], Hosts(2, 2), heartbeat_s=30, command={program(child)!r}))"
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not all((tmp_path / name).exists() for name in "01"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 143
    assert (tmp_path / "stopped").read_text() == "xx"
    assert "died" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ((0, 0), "one process or more"),
        ((2, 4, 3, "a:1"), "not among the 4"),
        ((2, 4), "give --coordinator"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(hosts, message):
    with pytest.raises(UserError, match=message):
        Hosts(*hosts)
