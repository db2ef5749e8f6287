"""An attempt to transfer a file: from where an earlier attempt stopped, and no byte more than it has."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

_CHUNK = 1 << 18
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class Entry(Protocol):
    """What is known of a published file before it is there (`PublishedWeights`, `download.PublishedFile`)."""

    @property
    def size(self) -> int | None: ...

    @property
    def mebibytes(self) -> float: ...

    def may_have_size(self, size: int) -> bool: ...


class ChangedError(Exception):
    """What is at hand can't be continued: start from the first byte."""


class PermanentError(Exception):
    """Trying again would not help; the text says why."""


def about_size(entry: Entry) -> int:
    """Length of the file in bytes, to half a thousandth of a mebibyte where it is not known exactly."""
    return entry.size or round(entry.mebibytes * 2**20)


def transfer(
    entry: Entry,
    url: str,
    part: Path,
    start: int,
    report: Callable[[int], None],
    timeout: float,
) -> None:
    """Adds to `part` what is missing from byte `start` on.

    Args:
        entry: What is expected.
        url: Where it is.
        part: The file to add to.
        start: Bytes that it has.
        report: Called with the bytes at hand.
        timeout: Seconds without any answer after which to give up.

    Raises:
        ChangedError: What is at hand can't be continued.
        PermanentError: Trying again would not help.
        URLError, HTTPException, ConnectionError, TimeoutError: It stopped; trying again may help.
    """
    headers = {"User-Agent": "facefeat_jax", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: Any = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:
            raise ChangedError from None
        if error.code not in _RETRY_STATUS:
            raise PermanentError(f"the server answered {error.code} {error.reason}") from None
        raise
    with response:
        # file:// has no status, and gives the whole file.
        if start and getattr(response, "status", None) == 206:
            size = _check_range(response.headers.get("Content-Range", ""), start, entry)
        else:
            start = 0
            length = response.headers.get("Content-Length")
            size = int(length) if length is not None and length.isdecimal() else None
            if size is not None and not entry.may_have_size(size):
                raise PermanentError(f"it is {size:,} bytes long instead of {about_size(entry):,}")
        size = size or entry.size
        most = size or about_size(entry) + 1024
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            at = start
            report(at)
            while chunk := _chunk(response):
                at += len(chunk)
                if at > most:
                    raise PermanentError(f"it sent more than the expected {about_size(entry):,} bytes")
                file.write(chunk)
                report(at)
            file.flush()
            os.fsync(file.fileno())
    if at < (size or 0) or not entry.may_have_size(at):
        raise http.client.IncompleteRead(b"", max((size or about_size(entry)) - at, 1))


def _chunk(response: Any) -> bytes:
    """What has arrived, b"" at the end. Its errors are the network's; those of writing are not, and are told apart."""
    try:
        # read1, so that a slow server's bytes are kept and shown as they come.
        return response.read1(_CHUNK) if hasattr(response, "read1") else response.read(_CHUNK)
    except OSError as error:
        raise urllib.error.URLError(error) from None


def _check_range(stated: str, start: int, entry: Entry) -> int | None:
    """Returns the whole length that a 206 answer states; it must continue where we stopped, in a file of our length."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stated.strip())
    if not match or int(match[1]) != start or not (match[2] == "*" or entry.may_have_size(int(match[2]))):
        raise ChangedError
    return None if match[2] == "*" else int(match[2])


def reason(error: Exception) -> str:
    """Returns in words why an attempt stopped."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected or 0:,} bytes too early"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    return " ".join(str(getattr(inner, "strerror", None) or inner or type(inner).__name__).split())


def asked_wait(error: Exception) -> float:
    """Seconds that the server asks us to wait, at most 30."""
    if isinstance(error, urllib.error.HTTPError):
        asked = error.headers.get("Retry-After", "") if error.headers else ""
        if asked.isdecimal():
            return min(float(asked), 30.0)
    return 0.0
