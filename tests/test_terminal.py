"""A command in a real terminal of 80 columns: its bar fits, and Ctrl-C leaves the terminal as it was."""

from __future__ import annotations

import os
import re
import sys
import time

import pytest

pty = pytest.importorskip("pty", reason="pseudo-terminals are of POSIX systems")


def test_a_bar_fits_into_80_columns_and_ctrl_c_leaves_the_cursor_shown(tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS="80", LINES="24", TERM="xterm-256color")
        words = [sys.executable, "-m", "facefeat_jax.cli", "prepare", "avatars", "--data-dir", str(tmp_path)]
        os.execv(sys.executable, words)
    said, is_stopped, until = b"", False, time.monotonic() + 60
    while time.monotonic() < until:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how the end of a pseudo-terminal is said
            break
        if not piece:
            break
        said += piece
        if not is_stopped and b"images/s" in said:
            os.write(terminal, b"\x03")
            is_stopped = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = said.decode()
    assert os.waitstatus_to_exitcode(status) == 130, text
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))
    bars = [line for line in lines if line.startswith("avatars: drawing ")]
    assert any(re.search(r" \d+/8,192 [\d,]+ images/s, .* left$", line) for line in bars), text
    assert max(map(len, bars)) <= 80 and "Traceback" not in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0  # the cursor is shown again
