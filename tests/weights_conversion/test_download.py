"""Downloads against a server on this machine that stops, stalls, lies and changes its mind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax.system.errors import UserError
from weights_conversion import download
from weights_conversion.download import WEIGHTS, DownloadError, cache_folder, fetch

CONTENT = np.random.RandomState(0).bytes(3_000_000)
NAME = "resnet18-f37072fd"
FILE = f"{NAME}.pth"


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `plan` says, answer by answer, how it misbehaves. After the plan it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.plan: list[str] = []
        self.default = "good"
        self.ranges: list[str | None] = []  # the Range header of each request
        self.paths: list[str] = []
        self.guard = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/folder"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        with server.guard:
            server.ranges.append(self.headers.get("Range"))
            server.paths.append(self.path)
            act = server.plan.pop(0) if server.plan else server.default
        if act.isdigit():
            self.send_response(int(act))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, start = server.content, 0
        if (wanted := self.headers.get("Range")) and act != "no range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            stated = start + 1 if act == "wrong range" else start
            self.send_header("Content-Range", f"bytes {stated}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if act != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if act == "endless":
            body = body * 2
        if act.startswith("cut"):
            body = body[: int(act.removeprefix("cut "))]
        if act == "stall":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(1.0)
            return
        with contextlib.suppress(OSError):  # the client leaves, as it should, where more comes than was promised
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "FACEFEAT_WEIGHTS_MIRROR", "FACEFEAT_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    entry = replace(WEIGHTS[NAME], sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    monkeypatch.setitem(WEIGHTS, NAME, entry)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


Get = Callable[..., Path]


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Get:
    def get(**options: object) -> Path:
        settings = {"cache_dir": tmp_path, "mirror": server.address, "progress": False, "timeout": 5.0, "backoff": 0.01}
        return fetch(NAME, **{**settings, **options})  # type: ignore[arg-type]

    return get


def refusal(get: Get, **options: object) -> str:
    with pytest.raises(DownloadError) as caught:
        get(**options)
    message = str(caught.value)
    assert isinstance(caught.value, UserError) and "\n" not in message
    return message


def visible(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


# ------------------------------------------------------------------------------------------------------------ the table


def test_the_table_is_consistent() -> None:
    for name, entry in WEIGHTS.items():
        assert name == entry.name and entry.file == f"{name}.pth" and entry.url.startswith("https://")
        assert re.fullmatch(r"[0-9a-f]{8}", entry.digits) and entry.licence and entry.origin
        if entry.sha256 is not None:
            assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
            assert entry.digits == entry.sha256[:8]  # torchvision's own mark in the file's name
        if entry.size is not None:
            assert round(entry.size / 2**20, 3) == entry.mebibytes and entry.may_have_size(entry.size)
        assert not entry.may_have_size(round((entry.mebibytes + 0.002) * 2**20))


def test_a_file_of_which_eight_digits_are_known_is_held_to_those(get: Get, server: Server, tmp_path: Path) -> None:
    digest, mebibytes = hashlib.sha256(CONTENT).hexdigest(), round(len(CONTENT) / 2**20, 3)
    name = f"resnet18-{digest[:8]}"
    entry = replace(WEIGHTS[NAME], name=name, sha256=None, size=None, mebibytes=mebibytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WEIGHTS, NAME, entry)
        server.plan = ["cut 1000000", "good"]
        assert get().read_bytes() == CONTENT and len(server.ranges) == 2 and server.ranges[1] is not None
        assert visible(tmp_path) == [f"{name}.pth"]
        assert get().read_bytes() == CONTENT and len(server.ranges) == 2  # now from the cache
        (tmp_path / f"{name}.pth").unlink()
        server.content = CONTENT[:-1] + b"?"  # another file of the same length
        assert f"expected SHA-256 {digest[:8]}..." in refusal(get)
        server.content = CONTENT + bytes(2000)
        assert "bytes long instead of" in refusal(get)


@pytest.mark.realdata
def test_the_size_of_the_tar_is_what_its_headers_add_up_to(realdata: Path) -> None:
    head = (realdata / "torchvision_resnet18" / "resnet18-5c106cde.TRUNCATED.pth").read_bytes()
    end = 20_480 + 512 + int(head[20_480 + 124 : 20_480 + 135], 8)
    blocks = -(-end // 512) * 512 + 1024  # two empty blocks end a tar, which is padded to records of 10,240
    assert WEIGHTS["resnet18-5c106cde"].size == -(-blocks // 10_240) * 10_240


def test_an_unknown_name_suggests_the_near_one() -> None:
    with pytest.raises(UserError, match="Did you mean 'resnet18-f37072fd'"):
        fetch("resnet18-f37072")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FACEFEAT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "facefeat_jax" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "facefeat_jax" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "facefeat_jax" / "weights"
    monkeypatch.setenv("FACEFEAT_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own" / "weights"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"


# --------------------------------------------------------------------------------------------------------- it goes well


def test_downloads_once_and_then_works_offline(get: Get, server: Server, tmp_path: Path) -> None:
    path = get()
    assert path == tmp_path / FILE and path.read_bytes() == CONTENT
    assert server.paths == [f"/folder/{FILE}"] and visible(tmp_path) == [FILE]
    assert get(mirror="http://127.0.0.1:9/none") == path  # not even tried
    assert len(server.paths) == 1


def test_a_file_put_there_by_hand_is_used(get: Get, server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT and server.paths == []


def test_a_damaged_file_in_the_cache_is_replaced(get: Get, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(CONTENT[:-1] + b"?")
    assert get().read_bytes() == CONTENT and visible(tmp_path) == [FILE]


def test_mirror_and_cache_from_the_environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEFEAT_WEIGHTS_MIRROR", server.address + "/")
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "a" / "b"))
    assert fetch(NAME, progress=False) == tmp_path / "a" / "b" / "weights" / FILE
    assert server.paths == [f"/folder/{FILE}"]


def test_a_folder_as_mirror(get: Get, tmp_path: Path) -> None:
    source = tmp_path / "mirror"
    source.mkdir()
    message = refusal(get, mirror=source.as_uri())
    assert "could not copy" in message and "No such file" in message
    (source / FILE).write_bytes(CONTENT)
    assert get(mirror=source.as_uri()).read_bytes() == CONTENT
    assert "begin it with https://" in refusal(get, mirror="ftp://host/x", cache_dir=tmp_path / "other")


def test_progress_as_a_function(get: Get) -> None:
    seen: list[tuple[int, int]] = []
    get(progress=lambda at, of: seen.append((at, of)))
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert [at for at, _ in seen] == sorted(at for at, _ in seen) and len(seen) > 5


def test_progress_bar_shows_on_a_terminal_only(get: Get, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    get(progress=True)
    assert capsys.readouterr() == ("", "")
    (tmp_path / FILE).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
        get(progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and FILE in shown.err and "3.0" in shown.err and "MB" in shown.err


# -------------------------------------------------------------------------------------------------------- it goes wrong


CUT, AT = "cut 1000000", "bytes=1000000-"
ON_THE_WAY: dict[str, tuple[bytes, list[str], list[str | None]]] = {
    "the connection ends": (b"", [CUT, "cut 500000"], [None, AT, "bytes=1500000-"]),
    "ranges are ignored": (b"", [CUT, "no range"], [None, AT]),
    "another range is answered": (b"", [CUT, "wrong range"], [None, AT, None]),
    "errors that pass": (b"", ["503", "429", "500"], [None] * 4),
    "no length is stated": (b"", ["no length"], [None]),
    "a part of another file": (b"?" * 1_000_000, [], [AT, None]),
    "a part as long as the file": (b"?" * len(CONTENT), [], [None]),
    "a part that is longer": (b"?" * (len(CONTENT) + 5), [], [None]),
    "a part that is complete": (CONTENT, [], []),
    "a range that the server does not have": (CONTENT[:1000], ["416"], ["bytes=1000-", None]),
}


@pytest.mark.parametrize("case", ON_THE_WAY)
def test_whatever_happens_on_the_way_the_whole_file_comes(case: str, get: Get, server: Server, tmp_path: Path) -> None:
    part, plan, ranges = ON_THE_WAY[case]
    server.plan = list(plan)
    if part:
        (tmp_path / f"{FILE}.part").write_bytes(part)
    assert get().read_bytes() == CONTENT
    assert server.ranges == ranges and visible(tmp_path) == [FILE]


def test_the_next_call_resumes_too(get: Get, server: Server, tmp_path: Path) -> None:
    server.plan, server.default = ["cut 1000000"], "cut 0"
    message = refusal(get)
    assert (
        "the connection ended 2,000,000 bytes too early" in message
        and "1,000,000 of 3,000,000 bytes are kept" in message
    )
    assert visible(tmp_path) == [f"{FILE}.part"]
    server.default, server.ranges = "good", []
    assert get().read_bytes() == CONTENT and server.ranges == ["bytes=1000000-"]


def test_errors_that_stay(get: Get, server: Server, tmp_path: Path) -> None:
    server.default = "503"
    message = refusal(get)
    assert len(server.ranges) == 4
    for piece in (f"tried {server.address}/{FILE} 4 times", "answered 503", WEIGHTS[NAME].url, str(tmp_path / FILE)):
        assert piece in message
    assert "FACEFEAT_WEIGHTS_MIRROR" in message and visible(tmp_path) == []


def test_a_missing_file_is_not_asked_for_again(get: Get, server: Server, tmp_path: Path) -> None:
    server.default = "404"
    message = refusal(get)
    assert "answered 404" in message and WEIGHTS[NAME].url in message and str(tmp_path / FILE) in message
    assert len(server.ranges) == 1


def test_wrong_content_is_removed(get: Get, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    message = refusal(get)
    assert hashlib.sha256(CONTENT).hexdigest() in message and hashlib.sha256(server.content).hexdigest() in message
    assert visible(tmp_path) == [] and len(server.ranges) == 1


def test_a_page_instead_of_the_file(get: Get, server: Server, tmp_path: Path) -> None:
    server.content = b"<html>log in first</html>"
    assert "25 bytes long instead of 3,000,000" in refusal(get)
    assert visible(tmp_path) == []


def test_more_than_was_promised_is_not_kept(get: Get, server: Server, tmp_path: Path) -> None:
    server.content, server.default = CONTENT * 2, "no length"
    assert "more than the expected 3,000,000 bytes" in refusal(get)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT)
    server.content, server.default = CONTENT, "good"
    assert get().read_bytes() == CONTENT


def test_a_server_that_stalls_is_given_up_and_resumed(get: Get, server: Server) -> None:
    server.plan = ["stall"]
    start = time.monotonic()
    assert get(timeout=0.3).read_bytes() == CONTENT
    assert time.monotonic() - start < 5 and server.ranges == [None, "bytes=1000-"]


def test_a_trickle_is_not_followed_for_ever(get: Get, server: Server) -> None:
    server.default = "cut 7"
    assert "tried" in refusal(get, backoff=0.0) and len(server.ranges) == 40


def test_without_a_network(get: Get, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    message = refusal(get, mirror=f"http://127.0.0.1:{port}")
    assert "Connection refused" in message and "by hand and put it at" in message and str(tmp_path / FILE) in message
    assert visible(tmp_path) == []


def test_a_cache_folder_that_cannot_be_made(get: Get, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "FACEFEAT_CACHE" in refusal(get, cache_dir=tmp_path / "file" / "weights")


def test_a_full_disk(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refusal(get) and FILE not in visible(tmp_path)


# ------------------------------------------------------------------------------------------------------ several at once


def test_several_callers_download_once(get: Get, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LOCK_POLL_S", 0.01)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1 and len(paths) == 4 and len(server.ranges) == 1


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_of_a_process_that_died_is_free(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LOCK_WAIT_S", 0.1)
    monkeypatch.setattr(download, "_LOCK_POLL_S", 0.02)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / f".{FILE}.lock")], stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            assert "another process has held" in refusal(get)
        finally:
            holder.kill()
    assert get().read_bytes() == CONTENT
