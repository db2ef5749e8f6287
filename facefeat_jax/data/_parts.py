"""Pictures to records, one file of records after the other: read, checked and written once, by several processes.

A part is a run of selected pictures that becomes one file. What is in it depends on nothing but its pictures, so the
files are the same however many processes there are. Processes, since about a fifth of the work holds the GIL. They
import neither JAX nor TFDS.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from facefeat_jax.data import _budget as budget
from facefeat_jax.data import _child
from facefeat_jax.data._listing import Picture, Reader, checked
from facefeat_jax.data._record_file import example, write_records
from facefeat_jax.data.images import resized
from facefeat_jax.data.selection import LeftOut, Row, SplitName
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.kinds import DecodePolicy
from facefeat_jax.system.runtime import cores

# Pictures for each process at least, or bytes of them: it takes half a second to start.
_ALONE, _BYTES_ALONE = 1024, 2**25
_STEP = 32  # pictures between two words about progress


class Files(NamedTuple):
    """Files of a download; see `Reader`."""

    tree: Tree
    root: str  # of the data set in it

    def read(self, row: Row) -> bytes:
        return self.tree.read(self.root + row.source_file)

    def size(self, row: Row) -> int:
        return self.tree.size(self.root + row.source_file)


class Held(NamedTuple):
    """Pictures in memory; see `Reader`."""

    data: dict[str, bytes]  # by `source_file`

    def read(self, row: Row) -> bytes:
        return self.data[row.source_file]

    def size(self, row: Row) -> int:
        return 0  # it is in memory already


@dataclass(frozen=True)
class Part:
    """Pictures that become one file of records."""

    split: SplitName
    first: int  # number of the first picture in its split
    rows: Sequence[Row]
    path: Path  # of the file; it is written only where a picture of them decodes
    reader: Reader | None = None  # for these pictures alone, where they don't all share one


class Written(NamedTuple):
    """What became of a part."""

    found: list[Picture | LeftOut]  # of each of its pictures, in order
    sums: list[int]  # CRC-32 of the row of pixels of each that decodes, where rows are wanted


@dataclass(frozen=True)
class Making:
    """What is made of pictures.

    Attributes:
      numbers: by task, the number of each class.
      reader: shared by all parts, or None.
      pixels: how a picture becomes a row of pixels; None where no rows are wanted.
      rows: by split, the file of its rows. Those of a part begin where they belong if all pictures before it decode.
    """

    numbers: dict[str, dict[str, int]]
    reader: Reader | None
    pixels: Any = None  # a `pixels.PixelFormat`: to import that would be a circle
    rows: Mapping[SplitName, Path] | None = None

    def write(self, part: Part, advance: Callable[[int], object]) -> Written:
        """Writes a part's file.

        Args:
          part: which.
          advance: called with the number of pictures done since the last call.
        """
        # Here, not above: it takes a process a fifth of its start, and only rows need it.
        if self.rows:
            from facefeat_jax.data._row_store import checksums, write_at

        reader = part.reader or self.reader
        assert reader is not None
        done = Written([], [])
        values: np.ndarray | None = None

        def see(policy: DecodePolicy, picture: Image.Image) -> None:
            nonlocal values
            if policy == self.pixels.decode:
                values = resized(picture, self.pixels.image_size, self.pixels.interpolation)

        def records() -> Iterator[bytes]:
            per_row = 4 * self.pixels.image_size if self.pixels else 0
            for number, row in enumerate(part.rows, 1):
                one, data = checked(row, reader, part.split, see=see if self.pixels else None, per_row=per_row)
                done.found.append(one)
                if isinstance(one, Picture):
                    if rows is not None and values is not None:
                        try:
                            write_at(rows.fileno(), values[None], (part.first + len(done.sums)) * values.nbytes)
                        except OSError as error:
                            error.filename = rows.name  # for whoever says where there is no room
                            raise
                        done.sums.extend(checksums(values[None]).tolist())
                    yield self._record(row, data)
                if number % _STEP == 0:
                    advance(_STEP)

        with open(self.rows[part.split], "r+b", buffering=0) if self.rows else contextlib.nullcontext() as rows:
            written = records()
            if (first := next(written, None)) is not None:
                write_records(part.path, itertools.chain([first], written))
        advance(len(part.rows) % _STEP)
        return done

    def _record(self, row: Row, data: bytes) -> bytes:
        """Returns the record of a picture, as the features of `PictureBuilder` say."""
        labels = {task: self.numbers[task][name] for task, name in row.labels.items()}
        groups = {f"groups/{name}": value for name, value in row.groups.items()}
        return example(
            {"image": data, "source_file": row.source_file, "source_row": row.source_row, **labels, **groups}
        )


def write_all(
    making: Making,
    parts: Sequence[Part],
    *,
    shared: Path,
    workers: int | None = None,
    early: Early | None = None,
    advance: Callable[[int], object] = lambda _: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[Written]:
    """Writes all parts; returns what became of each, in order.

    Args:
      making: how.
      parts: in the order in which they are begun.
      shared: a folder of this work alone, for the count of the memory that the processes share.
      workers: number of processes; one per core if None, and fewer where the pictures are few. With one, everything
        happens in this process.
      early: processes that were started before; they are taken first.
      advance: called with the number of pictures done since the last call, from this thread.
      meanwhile: called once, while other processes are at work if there are any.

    Raises:
      OSError: a file can't be written.
      UserError: a process died.
    """
    pictures = sum(len(part.rows) for part in parts)
    count = min(workers or cores(), len(parts))
    if pictures < count * _ALONE:
        of_all = ((part.reader or making.reader, row) for part in parts for row in part.rows)
        num_bytes = sum(reader.size(row) for reader, row in of_all if reader)
        count = min(count, max(pictures // _ALONE, num_bytes // _BYTES_ALONE))
    if count <= 1:
        meanwhile()
        return [making.write(part, advance) for part in parts]
    done: dict[int, Written] = {}
    with _Processes(making, parts, shared, count, early) as answers:
        meanwhile()
        while len(done) < len(parts):
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            if isinstance(answer, int):
                advance(answer)
            else:
                done[answer[0]] = answer[1]
    return [done[number] for number in range(len(parts))]


class Early:
    """Processes for `write_all`, started while it is found out what is to be written: they import for half a second.

    Args:
      workers: as in `write_all`.
    """

    def __init__(self, workers: int | None):
        self._most = workers or cores()
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, pictures: int) -> None:
        """Starts as many as so many pictures are worth."""
        count = min(self._most, pictures // _ALONE)
        while 1 < count > len(self.children):
            self.children.append(_child.start(__name__))

    def close(self) -> None:
        """Ends them, unless `write_all` took them over."""
        for child in self.children:
            _child.end(child)


class _Processes:
    """Processes that write parts, each the next one that is left; gives the queue of what they answer.

    An answer is a number of pictures done, the number of a part with what became of it, or an exception.
    """

    def __init__(self, making: Making, parts: Sequence[Part], shared: Path, count: int, early: Early | None):
        self._parts = parts
        self._left = iter(range(len(parts)))
        self._turn = threading.Lock()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        opening = pickle.dumps((making, shared))
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads = [threading.Thread(target=self._attend, args=(n, opening), daemon=True) for n in range(count)]
        try:
            for _ in range(count):
                self._children.append(early.children.pop() if early and early.children else _child.start(__name__))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> queue.SimpleQueue[Any]:
        for thread in self._threads:
            thread.start()
        return self._answers

    def __exit__(self, *_: object) -> None:
        self._end()
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()

    def _attend(self, number: int, opening: bytes) -> None:
        """Hands parts to one process until none is left, and its answers on."""
        child = self._children[number]
        assert child.stdin and child.stdout
        done, part = 0, None
        with contextlib.suppress(BrokenPipeError), child.stdin, child.stdout:
            try:
                child.stdin.write(opening)
                while True:
                    with self._turn:
                        index = next(self._left, None)
                    if index is None:
                        return
                    done, part = 0, self._parts[index]
                    pickle.dump(part, child.stdin)
                    child.stdin.flush()
                    while isinstance(answer := pickle.load(child.stdout), int):
                        done += answer
                        self._answers.put(answer)
                    if isinstance(answer, Written):
                        found = map(_put_back, part.rows, answer.found)
                        answer = index, Written(list(found), answer.sums)
                    self._answers.put(answer)
            except (EOFError, pickle.UnpicklingError, BrokenPipeError):
                self._answers.put(_died(child.wait(), part, done))
            except BaseException as error:  # whoever waits must hear of it
                self._answers.put(error)


def _without_row(one: Picture | LeftOut) -> Any:
    """Returns it as it travels back: whoever gave out the row has it."""
    return one[1:] if isinstance(one, Picture) else one


def _put_back(row: Row, one: Any) -> Picture | LeftOut:
    return one if isinstance(one, LeftOut) else Picture(row, *one)


def _died(code: int, part: Part | None, done: int) -> UserError:
    how = f"by signal {-code}{' (memory may have run out)' if code == -signal.SIGKILL else ''}" if code < 0 else ""
    where = "before the first picture"
    if part is not None:
        rows = part.rows[done : done + _STEP] or part.rows[-1:]
        where = f"at one of the {len(rows)} pictures from {rows[0].source_file} on"
    ended = f"was ended {how}" if how else f"ended with exit code {code}"
    return UserError(f"a process that checks pictures {ended} {where}; nothing was written, prepare again")


def _serve() -> None:
    """Writes the parts that standard input names; a process' main function."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer

    def answer(value: object) -> None:
        pickle.dump(value, answers)
        answers.flush()

    making, shared = pickle.load(asked)
    budget.FILES.share(shared / "files")
    budget.DECODING.share(shared / "decoding")
    gc.freeze()
    with contextlib.suppress(EOFError, BrokenPipeError):  # whoever asks has ended
        while True:
            part = pickle.load(asked)
            try:
                done = making.write(part, answer)
                written: object = Written([_without_row(one) for one in done.found], done.sums)
            except (OSError, UserError, MemoryError) as error:
                written = error
            answer(written)
