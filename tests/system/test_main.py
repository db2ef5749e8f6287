"""Standard streams that are closed, full or of another encoding, and variables that JAX can't use: one line, exit 2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FACEFEAT = f'"{sys.executable}" -m facefeat_jax.cli'


def run(line: str, **variables: str) -> tuple[int, bytes, list[str]]:
    """Returns exit code, standard output and lines of standard error of a line for the shell."""
    done = subprocess.run(line, shell=True, capture_output=True, env={**os.environ, **variables})
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{FACEFEAT} --help >/dev/full", "No space left on device"),
        (f"{FACEFEAT} --help >&-", "Bad file descriptor"),
        (f"{FACEFEAT} train avatars --help >/dev/full", "No space left on device"),
        (f"{FACEFEAT} evaluate absent <&- >&-", "there is no run folder"),
    ],
)
def test_output_that_can_not_be_written_is_one_line_and_exit_code_2(line, reason):
    code, out, err = run(line)
    assert (code, out) == (2, b"")
    assert len(err) == 1 and err[0].startswith("facefeat: ") and reason in err[0]


def test_notes_that_can_not_be_written_stop_nothing():
    assert run(f"{FACEFEAT} --help 2>&-")[0] == 0
    assert run(f"{FACEFEAT} evaluate absent 2>/dev/full")[0] == 2
    assert run(f"{FACEFEAT} evaluate absent 2>&-") == (2, b"", [])


def test_a_reader_that_has_gone_is_no_error():
    assert run(f"({FACEFEAT} --help; echo $? >&2) | true")[2] == ["0"]


def test_names_that_the_encoding_lacks_go_out_as_they_came_in():
    """Also names that are no text in any encoding; one of them once stopped all the others."""
    names = ["ü.png".encode(), b"\xff.png", b"a.png"]
    program = "import sys; from facefeat_jax.system import main; main.set_up_streams(); print(sys.stdin.read(), end='')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"\n".join(names), capture_output=True, env=environment
    )
    assert done.stdout.splitlines() == names
    program = "from facefeat_jax.system.main import set_up_streams; set_up_streams(); print('ü.png')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment)
    assert done.stdout == "ü.png\n".encode()


@pytest.mark.parametrize(
    "variables", [{"JAX_NUM_CPU_DEVICES": "x"}, {"JAX_ENABLE_X64": "maybe"}, {"JAX_PLATFORMS": "nothing_like_it"}]
)
def test_variables_that_jax_can_not_use_are_named(variables, trained_run):
    code, out, err = run(f'{FACEFEAT} predict "{trained_run}" "{__file__}"', **variables)
    ((name, value),) = variables.items()
    assert (code, out) == (2, b"")
    assert f"{name}={value!r}" in err[-1] and "Traceback" not in " ".join(err)
