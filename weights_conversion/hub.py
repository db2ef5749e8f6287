"""Downloads files of models from the Hugging Face Hub: a revision becomes a commit, and a file keeps its digest.

Nobody vouches for a file there, so the first download is trusted, and recorded: of which commit it is, and its SHA-256.
From then on the same name gives that commit, and a file with other content is refused. The record lies beside the
files, in the cache (`record.json`). Nothing that comes is executed: only tensors and text are read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import only_one, sha256_of, write_whole
from facefeat_jax.system.progress import say
from facefeat_jax.system.runtime import cache_dir as cache_root
from facefeat_jax.system.text import format_size
from weights_conversion.download import DownloadError

HUB_FILE = "model.safetensors"
"""The file of weights of a model on the Hub."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{6,}|(?<=Bearer )\S+")
_MOST_BYTES = {"config.json": 2**20}
_MOST_BYTES_OF_OTHERS = 2**32


class NoSuchFileError(DownloadError):
    """The model is there, and has no such file."""


@dataclass(frozen=True)
class HubFile:
    """A file of a model on the Hub, on this machine.

    Attributes:
      path: where it is.
      commit: the commit that it is of.
      is_first: whether it was downloaded now, so that its digest was trusted.
    """

    path: Path
    commit: str
    is_first: bool


def require_hub_name(name: str) -> None:
    """Raises UserError where this can't be the name of a model on the Hub."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UserError(f"{name!r} is no name of a model on the Hub: give owner/name")


def fetch_hub_weights(name: str, revision: str | None = None) -> Path:
    """Returns the file of weights of a model on the Hub, and says of which commit it is; see `fetch_from_hub`."""
    found = fetch_from_hub(name, HUB_FILE, revision=revision)
    how = "downloaded now, and trusted" if found.is_first else "the file that was downloaded first"
    say(f"facefeat: {name} at commit {found.commit}, {how}")
    return found.path


def fetch_from_hub(name: str, file: str, *, revision: str | None = None) -> HubFile:
    """Returns a file of a model on the Hub; downloads it if it is not in the cache.

    The Hub's own variables count: `HF_ENDPOINT` (another server), `HF_TOKEN` (private models), `HF_HUB_OFFLINE`.

    Args:
      name: `owner/name`.
      file: its name there.
      revision: a branch, a tag or a commit, which the Hub is asked about. None takes the commit that was downloaded
        first without one, and `main` where there is none.

    Raises:
      UserError: that is no name.
      DownloadError: the file could not be had, or is not the one that was downloaded first.
    """
    require_hub_name(name)
    folder = cache_root() / "hub" / name.replace("/", "--")
    what = f"{name} on the Hub"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder / ".lock", waiting=lambda seconds: None):
            return _fetched(name, file, revision, folder, what)
    except OSError as error:
        raise DownloadError(f"can't keep {what} in {folder} ({error.strerror or error})") from error


def _fetched(name: str, file: str, revision: str | None, folder: Path, what: str) -> HubFile:
    record_file = folder / "record.json"
    record = _read_record(record_file)
    commit = record["first"] if revision is None else revision
    stated = None
    if commit is None or not _COMMIT.fullmatch(commit) or file not in record["files"].get(commit, {}):
        commit, stated = _ask(name, commit or "main", file, what)
    known = record["files"].get(commit, {}).get(file)
    path = folder / commit / file
    if known is not None and sha256_of(path) == known:
        found = known
    else:
        path.unlink(missing_ok=True)
        _download(name, file, commit, folder / commit, what)
        _check(path, what)
        found = sha256_of(path)
        if (wanted := known or stated) and found != wanted:
            path.unlink(missing_ok=True)
            why = f"of the first download ({record_file})" if known else "that the Hub states"
            raise DownloadError(
                f"{file} of {what} at commit {commit[:12]} has changed: its SHA-256 is {found}, not "
                f"{wanted} {why}; find out why before you use it"
            )
    if known is None or (revision is None and record["first"] is None):
        if revision is None:
            record["first"] = commit
        record["files"].setdefault(commit, {})[file] = found
        write_whole(record_file, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    return HubFile(path, commit, known is None)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        if isinstance(record["files"], dict) and (record["first"] is None or _COMMIT.fullmatch(record["first"])):
            return record
    except FileNotFoundError:
        return {"first": None, "files": {}}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DownloadError(f"{path}, which says what was downloaded first, is damaged; delete {path.parent} to begin anew")


def _ask(name: str, revision: str, file: str, what: str) -> tuple[str, str | None]:
    """Returns the commit of a revision, and the SHA-256 of a file there where the Hub states it."""
    from huggingface_hub import HfApi

    with _reached(what, revision, file):
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        commit = info.sha or ""
        if not _COMMIT.fullmatch(commit):
            raise ValueError("it names no commit")
        part = next((part for part in info.siblings or () if part.rfilename == file), None)
    if part is None:
        return commit, None
    _require_small(part.size or 0, file, what)
    return commit, part.lfs.sha256 if part.lfs else None


def _require_small(size: int, file: str, what: str) -> None:
    if size > (most := _MOST_BYTES.get(file, _MOST_BYTES_OF_OTHERS)):
        raise DownloadError(f"{file} of {what} is larger than {format_size(most)}; it is not downloaded")


def _download(name: str, file: str, commit: str, folder: Path, what: str) -> None:
    from huggingface_hub import hf_hub_download

    with _reached(what, commit, file):
        hf_hub_download(name, file, revision=commit, local_dir=folder)


def _check(path: Path, what: str) -> None:
    """Deletes a downloaded file and raises DownloadError where it is too large, or no file of tensors by its start."""
    with path.open("rb") as file:
        head = file.read(9)
    try:
        _require_small(path.stat().st_size, path.name, what)
        if path.suffix == ".safetensors" and (head[8:] != b"{" or head[:2] == b"PK"):
            raise DownloadError(f"{path.name} of {what} is no safetensors file, and nothing else is taken from there")
    except DownloadError:
        path.unlink()
        raise


@contextlib.contextmanager
def _reached(what: str, revision: str, file: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the Hub becomes a DownloadError of one line."""
    from huggingface_hub import errors

    try:
        with quiet_hub():
            yield
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{what} has no revision {revision!r}") from None
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise DownloadError(f"{what} can't be reached ({hub_reason(error.__cause__ or error)})") from None
        raise NoSuchFileError(f"{what} has no file {file}; was it written by `facefeat push`?") from None
    except Exception as error:  # httpx's, the library's own and the system's have no common base
        raise DownloadError(f"{what} can't be had ({hub_reason(error)})") from None


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Keeps what the Hub's library says of each attempt from the screen, and bars off where there is no terminal.

    What goes wrong is one line of ours.
    """
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def hub_reason(error: BaseException, *, writing: bool = False) -> str:
    """Returns in a few words why the Hub did not do what it was asked for, without anything secret."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "its owner has to admit you; then set HF_TOKEN"
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        if writing:
            return f"the server answered {status}: HF_TOKEN is not set or may not write there"
        return f"the server answered {status}: there is no such model, or it is private and HF_TOKEN may not read it"
    if status is not None:
        return f"the server answered {status}"
    if error.__cause__ is not None:
        return hub_reason(error.__cause__, writing=writing)
    return _SECRET.sub("***", " ".join((str(error) or type(error).__name__).split()))[:200]
