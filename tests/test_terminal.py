"""A command in a real terminal of 80 columns: its bar fits, and Ctrl-C leaves the terminal as it was."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are of POSIX systems")

# In a process of its own: the tests' has threads, and must not fork.
DRIVER = r"""
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(COLUMNS="80", LINES="24", TERM="xterm-256color")
    os.execv(sys.executable, [sys.executable, "-m", "facefeat_jax.cli", *sys.argv[1:]])
said, is_stopped = b"", False
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:  # how the end of a pseudo-terminal is said
        break
    said += piece
    if not piece:
        break
    if not is_stopped and b"images/s" in said:
        os.write(terminal, b"\x03")
        is_stopped = True
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_bar_fits_into_80_columns_and_ctrl_c_leaves_the_cursor_shown(tmp_path):
    words = [sys.executable, "-c", DRIVER, "prepare", "avatars", "--data-dir", str(tmp_path)]
    ended = subprocess.run(words, stdout=subprocess.PIPE, timeout=100)
    text = ended.stdout.decode()
    assert ended.returncode == 130, text
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))
    bars = [line for line in lines if line.startswith("avatars: drawing ")]
    assert any(re.search(r" \d+/8,192 [\d,]+ images/s, .* left", line) for line in bars), text
    assert max(map(len, bars)) <= 80 and "Traceback" not in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0  # the cursor is shown again
