"""Loads a server and measures it: python scripts/lab/load_server.py MODEL [--out docs/benchmarks/serving.md]

Requests per second and times of an answer at several numbers of clients, with and without hostile uploads among them,
and the memory of the server over many requests.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tyro
from PIL import Image

from facefeat_jax import avatars
from facefeat_jax.system import environment
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.markdown import table
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import count, format_size

_PACKAGES = ("facefeat-jax", "onnxruntime", "fastapi", "starlette", "uvicorn", "python-multipart", "numpy", "pillow")
_MARK = "mark"
_TYPE = {"Content-Type": f"multipart/form-data; boundary={_MARK}"}
_HOSTILE_EVERY = 5  # one request of so many


@dataclass
class Load:
    """What clients saw: seconds of each good request, and how often each status came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0

    def percentile(self, share: float) -> float:
        """Returns a percentile of the good requests, in milliseconds."""
        return 1000 * float(np.percentile(self.seconds, share)) if self.seconds else float("nan")


def form(*pictures: bytes) -> bytes:
    """Returns the body of an upload."""
    head = f'--{_MARK}\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'.encode()
    return b"".join(head + one + b"\r\n" for one in pictures) + f"--{_MARK}--\r\n".encode()


def encoded(picture: Image.Image, kind: str = "JPEG") -> bytes:
    """Returns a picture's file."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def good_bodies(side: int = 256, number: int = 16) -> list[bytes]:
    """Returns uploads of one drawn picture each, as JPEG."""
    return [form(encoded(avatars.draw(20_000, index).image.resize((side, side)))) for index in range(number)]


def hostile() -> list[Callable[[http.client.HTTPConnection], tuple[str, int]]]:
    """Returns requests that nobody should send, and what each is to be answered with."""
    bomb = encoded(Image.new("1", (60_000, 60_000)), "PNG")
    large = encoded(Image.new("RGB", (5000, 5000)), "PNG")  # is decoded: 25 million pixels
    cut = encoded(avatars.draw(20_000, 0).image.resize((900, 900)))[:9_000]
    bodies = [form(b""), form(bomb), form(large), form(cut), form(*[b"x"] * 33), b"junk", form(b"a" * 33 * 2**20)]

    def sent(body: bytes, length: int | None = None) -> Callable[[http.client.HTTPConnection], tuple[str, int]]:
        headers = {**_TYPE, **({} if length is None else {"Content-Length": str(length)})}

        def send(connection: http.client.HTTPConnection) -> tuple[str, int]:
            connection.request("POST", "/v1/predict", body, headers)
            response = connection.getresponse()
            response.read()
            return "hostile", response.status

        return send

    def gone(connection: http.client.HTTPConnection) -> tuple[str, int]:
        """Announces a picture and leaves."""
        connection.request("POST", "/v1/predict", b"--mark\r\n", {**_TYPE, "Content-Length": "100000"})
        connection.close()
        return "hostile", 0

    return [*map(sent, bodies), sent(b"", 10 * 2**30), gone]


def load(port: int, clients: int, total: int, *, with_hostile: bool = False) -> Load:
    """Has so many clients send so many requests together, each over one connection."""
    bodies, bad, found, lock = good_bodies(), hostile() if with_hostile else [], Load(), threading.Lock()
    numbers = iter(range(total))

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return
            start = time.perf_counter()
            try:
                if bad and number % _HOSTILE_EVERY == 0:
                    kind, status = bad[number // _HOSTILE_EVERY % len(bad)](connection)
                    connection.close()
                else:
                    connection.request("POST", "/v1/predict", bodies[number % len(bodies)], _TYPE)
                    response = connection.getresponse()
                    response.read()
                    kind, status = "good", response.status
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                kind, status = type(error).__name__, 0
            with lock:
                found.statuses[f"{kind} {status or 'no answer'}"] += 1
                if (kind, status) == ("good", 200):
                    found.seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.wall = time.perf_counter() - start
    return found


@contextlib.contextmanager
def server(model: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Serves a model in a process of its own; gives its port and the process."""
    words = [sys.executable, "-m", "facefeat_jax.cli", "serve", str(model), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not (match := re.search(r"http://127.0.0.1:(\d+)", lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        try:
            yield int(match[1]), psutil.Process(process.pid)
        finally:
            process.terminate()
            say(f"exit code after SIGTERM: {process.wait(60)}")


def main(
    model: tyro.conf.Positional[Path],
    out: Path | None = None,
    requests: int = 1000,
    leak: int = 20_000,
    note: str = "",
) -> None:
    """Measures a server of a model.

    Args:
      model: a run or an exported file.
      out: the page to write; without it, it is printed.
      requests: number of requests for each number of clients.
      leak: number of requests over which memory is watched, hostile ones among them.
      note: what else ran on the machine.
    """
    rows = []
    with server(model) as (port, process):
        load(port, 8, 200)
        for with_hostile in (False, True):
            for clients in (1, 8, 64):
                total = requests // 2 if clients == 1 or with_hostile else requests
                found = load(port, clients, total, with_hostile=with_hostile)
                rate = len(found.seconds) / found.wall
                cells = [clients, "yes" if with_hostile else "no", f"{rate:.0f}"]
                cells += [f"{found.percentile(50):.1f}", f"{found.percentile(99):.1f}", format_size(_rss(process))]
                rows.append([*cells, ", ".join(f"{name}: {n}" for name, n in sorted(found.statuses.items()))])
                say(" ".join(map(str, rows[-1])))
        curve, sent, statuses = [(0, _rss(process))], 0, Counter[str]()
        while sent < leak:
            part = min(1000, leak - sent)
            statuses += load(port, 16, part, with_hostile=sent // 1000 % 2 == 1).statuses
            sent += part
            curve.append((sent, _rss(process)))
            say(f"{sent:,} requests: {format_size(curve[-1][1])}")
    page = _page(model, rows, curve, statuses, note)
    if out is None:
        print(page)
    else:
        out.write_text(page)


def _rss(process: psutil.Process) -> int:
    return process.memory_info().rss


def _page(model: Path, rows: list, curve: list[tuple[int, int]], statuses: Counter[str], note: str) -> str:
    header = ["clients", "hostile uploads", "good answers/s", "p50 ms", "p99 ms", "memory of the server", "statuses"]
    recorded = environment.record(environment.typed("python scripts/lab/load_server.py"), _PACKAGES, devices="")
    memory = [[f"{sent:,}", format_size(size)] for sent, size in curve if sent % 2000 == 0]
    first, second = ([size for sent, size in curve if (sent > curve[-1][0] / 2) == late] for late in (False, True))
    lines = [
        "# The server under load",
        "",
        *environment.record_lines(recorded),
        *([f"- {note}"] if note else []),
        "",
        f"The model is {model.name}. Clients and server shared the machine; clients are threads of one Python process.",
        "",
        "A good request is one JPEG of 256 by 256 pixels over a kept connection. Of the others, one request of "
        f"{_HOSTILE_EVERY} is hostile: nothing, a bomb of 3.6 billion pixels, a picture of 25 million pixels (which is "
        "decoded), a picture cut short, 33 pictures, junk, 33 MiB, an announced 10 GiB, or a client that leaves. A "
        "client that sends all of the 33 MiB before it reads may find the connection closed in place of the 413.",
        "",
        *table(header, rows),
        "",
        "## Memory",
        "",
        f"{count(curve[-1][0], 'request')} from 16 clients, every second thousand with hostile ones: "
        + ", ".join(f"{name}: {n:,}" for name, n in sorted(statuses.items()))
        + f". In the first half it lay between {format_size(min(first))} and {format_size(max(first))}, in the second "
        + f"between {format_size(min(second))} and {format_size(max(second))}.",
        "",
        *table(["requests", "memory of the server"], memory),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
