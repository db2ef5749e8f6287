"""Downloads published weights once, checks them by SHA-256, and keeps them in a cache folder.

The table `facefeat_jax.models.published.WEIGHTS` says where a file is and what its hash must be. A download that stops
is taken up where it stopped; a file appears under its name only when it is complete and its hash is right.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from facefeat_jax.models.published import WEIGHTS, PublishedWeights
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.files import only_one, sha256_of
from facefeat_jax.system.runtime import cache_dir as cache_root
from weights_conversion._transfer import ChangedError, PermanentError, about_size, asked_wait, reason, transfer

_log = logging.getLogger(__name__)

Progress = bool | Callable[[int, int], None]

_ATTEMPTS = 4  # in a row without a single new byte
_ATTEMPTS_IN_ALL = 40  # a server that gives a little each time must not hold us for ever
_LOCK_WAIT_S = 1800.0
_LOCK_POLL_S = 0.2


class DownloadError(UserError):
    """A file could not be downloaded. One line: what was tried, where to get the file by hand, where to put it."""


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Returns the folder that downloaded weights are kept in.

    Args:
        cache_dir: The folder itself. None: `weights` under `$FACEFEAT_CACHE`, or else under `facefeat_jax` in
            `$XDG_CACHE_HOME`, or else in `~/.cache`.
    """
    return cache_root() / "weights" if cache_dir is None else Path(cache_dir).expanduser()


def fetch(
    name: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    mirror: str | None = None,
    progress: Progress = True,
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> Path:
    """Returns the path of published weights in the cache; downloads them if they are not there.

    A file in the cache is checked against its hash at every call (0.1 s for a ResNet18) and then used without any
    network (of some files only the first eight digits of the hash are known: then it is those that are checked), so a
    file that was downloaded by hand may simply be put there. Several processes may call this at once: one downloads,
    the others wait for it.

    Args:
        name: A key of `WEIGHTS`.
        cache_dir: Folder to keep the file in; see `cache_folder` for None.
        mirror: Address of a folder that holds the same files (`https://`, `http://` or `file://`), used instead of the
            publisher's. None: `$FACEFEAT_WEIGHTS_MIRROR`, if set.
        progress: True shows a bar with bytes, speed and time left on a terminal's standard error; False shows nothing;
            a function is called with the bytes at hand and the bytes in all.
        timeout: Seconds without any answer after which an attempt is given up.
        backoff: Seconds before the second attempt; twice that before the third, and so on.

    Returns:
        The path of the complete, checked file.

    Raises:
        UserError: There are no weights of that name.
        DownloadError: The file could not be had, does not have its hash, or the cache folder can't be written to.
    """
    if name not in WEIGHTS:
        raise unknown("weights", name, WEIGHTS)
    return fetch_file(
        WEIGHTS[name], cache_folder(cache_dir), mirror=mirror, progress=progress, timeout=timeout, backoff=backoff
    )


@dataclass(frozen=True)
class PublishedFile:
    """A published file that is not one of `WEIGHTS`.

    Attributes:
      name: what messages call it.
      file: its name, in the cache and on a mirror.
      url: where it is published.
      sha256: of the whole file, in hexadecimal.
      size: its length in bytes.
    """

    name: str
    file: str
    url: str
    sha256: str
    size: int

    @property
    def digits(self) -> str:
        """The first eight hexadecimal digits of its SHA-256."""
        return self.sha256[:8]

    @property
    def mebibytes(self) -> float:
        """Its length."""
        return self.size / 2**20

    def has_digest(self, sha256: str | None) -> bool:
        """Returns whether a file with that SHA-256 is this file."""
        return sha256 == self.sha256

    def may_have_size(self, size: int) -> bool:
        """Returns whether a file of that many bytes may be this file."""
        return size == self.size


def fetch_file(
    entry: PublishedWeights | PublishedFile,
    folder: Path,
    *,
    mirror: str | None = None,
    progress: Progress = True,
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> Path:
    """Returns the path of a published file in a folder, downloaded if it is not there; the rest is as for `fetch`.

    Raises:
        DownloadError: The file could not be had, does not have its hash, or the folder can't be written to.
    """
    target = folder / entry.file
    if entry.has_digest(sha256_of(target)):
        return target
    url = _address(entry, mirror)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{entry.file}.lock"
        with only_one(lock, waiting=_give_up_in_time(lock), poll_s=_LOCK_POLL_S):
            # Whoever held the lock before may have brought the file.
            found = sha256_of(target)
            if entry.has_digest(found):
                return target
            if found is not None:
                _log.warning("%s is not the published file (SHA-256 %s); downloading it again", target, found)
            with _reporter(entry, progress) as report:
                _download(entry, url, target, report, timeout, backoff)
    except OSError as error:
        raise DownloadError(
            f"can't keep {entry.file} in {folder}: {error.strerror or error}; "
            "free space or choose another folder with FACEFEAT_CACHE"
        ) from None
    return target


def _address(entry: PublishedWeights | PublishedFile, mirror: str | None) -> str:
    base = mirror or os.environ.get("FACEFEAT_WEIGHTS_MIRROR") or ""
    if not base:
        return entry.url
    if urllib.parse.urlsplit(base).scheme not in ("http", "https", "file"):
        raise DownloadError(
            f"the mirror {base!r} is not the address of a folder: begin it with https://, http:// or file://"
        )
    return f"{base.rstrip('/')}/{entry.file}"


# ----------------------------------------------------------------------------------------------------------- download


def _download(
    entry: PublishedWeights | PublishedFile,
    url: str,
    target: Path,
    report: Callable[[int], None],
    timeout: float,
    backoff: float,
) -> None:
    part = target.with_name(target.name + ".part")
    by_hand = f"download {entry.url} by hand and put it at {target}"
    tried = in_a_row = 0
    while True:
        tried += 1
        start = _size(part)
        try:
            if start < about_size(entry) and not entry.may_have_size(start):
                transfer(entry, url, part, start, report, timeout)
            found = sha256_of(part)
            if entry.has_digest(found):
                break
            part.unlink(missing_ok=True)
            # Bytes of two files may have been joined, if the first came from elsewhere. One fresh start settles it.
            if start == 0:
                raise DownloadError(
                    f"{url} sent a file that differs from the published one: expected SHA-256 "
                    f"{entry.sha256 or entry.digits + '...'}, got {found} "
                    f"(it was removed); try another mirror, or {by_hand}"
                )
            report(0)
            continue
        except ChangedError:
            part.unlink(missing_ok=True)
            report(0)
            continue
        except PermanentError as error:
            raise DownloadError(f"could not download {entry.name}: {url}: {error}; {by_hand}") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            why, wait = reason(error), asked_wait(error)
            if urllib.parse.urlsplit(url).scheme == "file":
                raise DownloadError(f"could not copy {entry.name}: {url}: {why}; {by_hand}") from None
        in_a_row = 1 if _size(part) > start else in_a_row + 1
        if in_a_row >= _ATTEMPTS or tried >= _ATTEMPTS_IN_ALL:
            kept = f" ({_size(part):,} of {about_size(entry):,} bytes are kept for the next try)" if _size(part) else ""
            raise DownloadError(
                f"could not download {entry.name}: tried {url} {tried} times, last: {why}{kept}; {by_hand}, "
                "or give a mirror with FACEFEAT_WEIGHTS_MIRROR"
            )
        time.sleep(max(wait, backoff * 2 ** (in_a_row - 1)))
    os.replace(part, target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# ------------------------------------------------------------------------------------------------- progress and locking


@contextlib.contextmanager
def _reporter(entry: PublishedWeights | PublishedFile, progress: Progress) -> Iterator[Callable[[int], None]]:
    if callable(progress):
        show = progress
        yield lambda at: show(at, about_size(entry))
        return
    if not progress:
        yield lambda at: None
        return
    # Only here, so that importing this module stays cheap.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(entry.file), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=about_size(entry))
        yield lambda at: bar.update(task, completed=at)


def _give_up_in_time(lock: Path) -> Callable[[float], None]:
    def waiting(seconds: float) -> None:
        if seconds > _LOCK_WAIT_S:
            raise DownloadError(
                f"another process has held {lock} for {_LOCK_WAIT_S / 60:.0f} minutes; end it and try again"
            ) from None

    return waiting
