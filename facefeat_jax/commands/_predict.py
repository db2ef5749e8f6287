"""`facefeat predict`: which options go together, and the way of the answers from the model to the output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from facefeat_jax.runs._about import is_exported, on_hub
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say, show_data
from facefeat_jax.system.text import count

_BATCH = 32
_OF_SHARDS = {"shard_size": 10_000, **dict.fromkeys(("image_column", "worker_index", "num_workers", "ray"))}

if TYPE_CHECKING:
    from facefeat_jax.prediction._answer_source import AnswerSource
    from facefeat_jax.prediction.boxes import Boxes


@dataclass(frozen=True)
class Arguments:
    """Prints the label and probability of every head for each picture, in the given order."""

    GROUPS: ClassVar = {
        "Output": ("format", "json", "out", "resume", "draw", "explain"),
        "People in photographs": ("faces", "face_model", "boxes"),
        "Millions of pictures, by many workers": (
            *("out_folder", "shard_size", "image_column", "worker_index", "num_workers", "ray"),
        ),
    }
    BARE: ClassVar = {"--ray": "local"}

    run: tyro.conf.Positional[Path]
    """Folder of the run; an .onnx file that `facefeat export` wrote, which ONNX Runtime runs, without JAX; or
    hf://owner/name, a model that `facefeat push` wrote to the Hugging Face Hub (hf://owner/name@REVISION)."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Pictures: files, folders, patterns in quotes (`'photos/**/*.jpg'`), videos, http or https addresses. `-` reads
    names of files from standard input, one per line."""
    glob: Annotated[str | None, tyro.conf.arg(metavar="PATTERN")] = None
    """Which files of a folder to take, such as '*.jpg'. The default is all whose names end like those of pictures."""
    every: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """Take every N-th frame of a video, such as film.mp4. Needs the extra `video`."""
    allow_private_addresses: bool = False
    """Fetch pictures also from hosts that are not on the public internet, such as this machine."""
    batch_size: int | None = None
    """Pictures per batch. The default is 32, and with --out-folder on a GPU or TPU 256."""
    runtime: Literal["jax", "onnx"] = "jax"
    """What computes. `onnx` is ONNX Runtime on CPU, without JAX: the first time, the run is exported into its folder.
    Needs the extra `onnx`."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    format: Literal["text", "json", "jsonl", "csv", "parquet"] = "text"
    """Output format. With --out-folder: parquet (default) or jsonl."""
    json: bool = False
    """The same as --format json."""
    out: Path | None = None
    """Write to this .jsonl or .csv file, not to standard output. --resume continues an interrupted file."""
    resume: bool = False
    """Continue the file of --out. Give the same pictures in the same order; those with an answer are skipped."""
    draw: Path | None = None
    """Write copies of the pictures with boxes and labels into this folder."""
    explain: Path | None = None
    """For each picture, write an image into this folder that shows which parts support each answer (Grad-CAM)."""
    faces: bool = False
    """Find the faces in each picture and predict for each person: gender from the face, glasses from the head, shirt
    from the upper body. Needs the extra `faces`."""
    face_model: Path | None = None
    """Find faces with this YuNet ONNX file instead of OpenCV's Haar cascade. `yunet` downloads OpenCV's file once."""
    boxes: Path | None = None
    """Predict for the faces in this CSV file. Its columns are file,left,top,right,bottom, in pixels or as fractions
    from 0 to 1."""
    out_folder: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Take each IMAGE as shards (tar files, Parquet tables, folders, patterns; also s3://...) and write a file of
    answers for each into this folder (also s3://...). Shards that have one are skipped. Needs the extra `shards`."""
    shard_size: int = 10_000
    """A folder of pictures is cut into shards of so many."""
    image_column: str | None = None
    """Column of Parquet tables that holds the encoded pictures. The default is the only such column, or `image`."""
    worker_index: int | None = None
    """Which of several workers this is, from 0. SLURM's arrays and Kubernetes' indexed jobs set it by themselves."""
    num_workers: int | None = None
    """How many workers share the shards; with --ray, how many it starts."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="[HOST:PORT]")] = None
    """Answer on this Ray cluster, with nothing behind it on this machine's cores. Needs the extra `ray`."""

    @property
    def people(self) -> bool:
        """Whether the answers are for each person in a picture."""
        return bool(self.boxes or self.faces or self.face_model)


def run(arguments: Arguments) -> int:
    """Answers for the pictures, into a file or on standard output; returns the exit code.

    It is 2 where a picture can't be used, or where no line of --boxes is for one of the pictures.

    Raises:
      UserError: options that contradict each other, or the run, the boxes or the output can't be used.
    """
    check(arguments)
    if arguments.out_folder is not None:
        return _in_shards(arguments, arguments.out_folder)
    if is_exported(arguments.run) or arguments.runtime == "onnx":
        arguments = _of_exported(arguments)
    else:
        _require_run(arguments)
    if arguments.out is not None:
        from facefeat_jax.prediction.stream import check_out

        check_out(arguments.out, resume=arguments.resume)
    files = _files(arguments)
    boxes = _read_boxes(arguments.boxes)
    source = _source(arguments, files, boxes)
    names = _names(files) if boxes is None else boxes.watched(_names(files))
    if arguments.out is None:
        bad = _print(source, names, arguments)
    else:
        bad = _write(source, names, len(files) if files else None, arguments.out, arguments)
    for line in source.written():
        say(line)
    if bad:
        say(f"facefeat: {bad} of the pictures can't be used; the output has the reason for each")
    line, is_none = boxes.unused() if boxes else ("", False)
    if line:
        say(f"facefeat: {line}")
    return 2 if bad or is_none else 0


def check(arguments: Arguments) -> None:
    """Checks what needs no run and no picture.

    Raises:
      UserError: no picture is named, options contradict each other, or a file that they name is not there.
    """
    if not arguments.images:
        is_named = arguments.run.is_dir() or is_exported(arguments.run) or on_hub(arguments.run)
        missing = "" if is_named else f"there is no run folder {arguments.run}; name the run, then "
        raise UserError(f"{missing}name the pictures: facefeat predict RUN IMAGE...")
    _check_shards(arguments)
    if arguments.out is None and arguments.resume:
        raise UserError("--resume continues a file; name it with --out FILE")
    if arguments.out is not None and (arguments.json or arguments.format != "text"):
        raise UserError("--out chooses the format by the file's suffix, .jsonl or .csv; leave out --format and --json")
    if arguments.boxes and (arguments.faces or arguments.face_model):
        raise UserError("--boxes gives the faces and --faces finds them; give only one of them")
    if arguments.people and arguments.explain:
        raise UserError("--explain works on whole pictures; give it without --faces and --boxes")
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise UserError(f"--batch-size must be 1 or more, got {arguments.batch_size}")
    if arguments.every < 1:
        raise UserError(f"--every must be 1 or more, got {arguments.every}")
    face_model = arguments.face_model
    if face_model is not None:
        from facefeat_jax.prediction._faces import is_asked_for

        face_model = None if is_asked_for(face_model) else face_model
    for file in (arguments.boxes, face_model):
        if file is not None and not file.exists():
            raise UserError(f"{file}: there is no such file; check the path")


def _check_shards(arguments: Arguments) -> None:
    """Raises UserError where options of shards and others are mixed."""
    given = [name for name, default in _OF_SHARDS.items() if getattr(arguments, name) != default]
    if arguments.out_folder is None:
        if given or arguments.format == "parquet":
            option = f"--{given[0].replace('_', '-')}" if given else "--format parquet"
            raise UserError(f"{option} is for shards; name the folder of their answers with --out-folder")
        return
    for name in ("out", "resume", "draw", "explain", "boxes", "allow_private_addresses", "json", "every"):
        if getattr(arguments, name) != getattr(Arguments, name):
            option = name.replace("_", "-")
            raise UserError(
                f"--{option} does not go with --out-folder, whose shards are answered file by file; leave it out"
            )
    if arguments.format in ("csv", "json"):
        raise UserError(f"--out-folder writes parquet or jsonl, got --format {arguments.format}")
    if arguments.shard_size < 1:
        raise UserError(f"--shard-size must be 1 or more, got {arguments.shard_size}")
    if arguments.ray and arguments.worker_index is not None:
        raise UserError("--worker-index is for workers that you start yourself; leave it out with --ray")
    if arguments.runtime == "onnx" and not is_exported(arguments.run):
        raise UserError(
            f"many workers take an exported file: facefeat export {arguments.run} model.onnx, then give model.onnx"
        )


def _in_shards(arguments: Arguments, out: str) -> int:
    """Answers shards, a file for each; returns the exit code."""
    from facefeat_jax.shards import predict_shards

    if not is_exported(arguments.run):
        _require_run(arguments)
    elif arguments.checkpoint != "newest" or not arguments.run.is_file():
        arguments = _of_exported(arguments)  # which says why not
    bad = predict_shards(
        arguments.run,
        arguments.images,
        out,
        form="jsonl" if arguments.format == "jsonl" else "parquet",
        batch_size=arguments.batch_size,
        checkpoint=arguments.checkpoint,
        faces=arguments.faces,
        face_model=_face_model(arguments),
        pattern=arguments.glob,
        shard_size=arguments.shard_size,
        image_column=arguments.image_column,
        worker_index=arguments.worker_index,
        num_workers=arguments.num_workers,
        ray=arguments.ray,
    )
    return 2 if bad else 0


def _require_run(arguments: Arguments) -> None:
    """Raises UserError where there is no run, before the slow imports."""
    if on_hub(arguments.run) is None:
        from facefeat_jax.runs.run_config import read_config

        read_config(arguments.run)
    elif arguments.checkpoint != "newest":
        raise UserError("--checkpoint chooses from a run folder; a model on the Hub has one: leave it out")


def _face_model(arguments: Arguments) -> Path | None:
    if arguments.face_model is None:
        return None
    from facefeat_jax.prediction._face_model import face_model_file

    return face_model_file(arguments.face_model)


def _files(arguments: Arguments) -> list[str] | None:
    """Returns the names of the pictures; None where they come from standard input."""
    if arguments.images == ("-",):
        return None
    from facefeat_jax.prediction._inputs import expanded

    files, lines = expanded(arguments.images, arguments.glob, arguments.every)
    for line in lines:
        say(line)
    return files


def _names(files: list[str] | None) -> Iterable[str]:
    from facefeat_jax.system.tables import stdin_names

    return stdin_names() if files is None else files


def _of_exported(arguments: Arguments) -> Arguments:
    """Returns the arguments with the exported file in place of the run; a run that is not exported yet is.

    Raises:
      UserError: there is no such file or run, or an option needs JAX or another checkpoint.
    """
    if arguments.explain or arguments.checkpoint != "newest":
        option = "--explain" if arguments.explain else "--checkpoint"
        raise UserError(f"{option} needs the run and JAX; leave it out, or give the run without --runtime onnx")
    if on_hub(arguments.run):
        raise UserError("--runtime onnx takes a run folder or an exported file; leave it out for a model on the Hub")
    if not is_exported(arguments.run):
        from facefeat_jax.exporting._kept import kept_onnx

        return replace(arguments, run=kept_onnx(arguments.run))
    if not arguments.run.is_file():
        raise UserError(f"there is no file {arguments.run}; facefeat export RUN {arguments.run.name} makes one")
    return arguments


def _read_boxes(path: Path | None) -> Boxes | None:
    if path is None:
        return None
    from facefeat_jax.prediction.boxes import read_boxes

    boxes = read_boxes(path)
    if boxes.are_shares:
        say(f"{boxes.path}: all boxes lie between 0 and 1: read as fractions of each picture's width and height")
    return boxes


def _source(arguments: Arguments, files: list[str] | None, boxes: Boxes | None) -> AnswerSource:
    """Returns what gives the answers; loads the model only where a file can be opened."""
    from facefeat_jax.prediction._answer_source import of_model, without_model
    from facefeat_jax.system.runtime import use_compilation_cache

    # A file of --out records its model, and so needs one; what --faces and `best` need may be missing too.
    exported = is_exported(arguments.run)
    find_faces = arguments.faces or arguments.face_model is not None
    # An exported file is small, and no run whose heads are known without it.
    needs_model = arguments.out or find_faces or arguments.checkpoint != "newest" or exported
    if files and not needs_model and (source := without_model(arguments.run, files)):
        return source
    if not exported:  # Not start_up, which keeps freed memory: the memory of large pictures would add up.
        use_compilation_cache()
    return of_model(
        arguments.run,
        batch_size=arguments.batch_size or _BATCH,
        checkpoint=arguments.checkpoint,
        find_faces=find_faces,
        face_model=_face_model(arguments),
        boxes=boxes,
        draw=arguments.draw,
        explain=arguments.explain,
        allow_private=arguments.allow_private_addresses,
    )


def _print(source: AnswerSource, names: Iterable[str], arguments: Arguments) -> int:
    """Prints the answers; returns how many of the pictures can't be used."""
    from facefeat_jax.prediction._output import lines
    from facefeat_jax.prediction.answers import Tally

    tally = Tally()
    form: Any = "json" if arguments.json else arguments.format
    for line in lines(tally.counted(source.stream(names)), source.tasks, form, people=arguments.people):
        show_data(line)
    return tally.bad


def _write(source: AnswerSource, names: Iterable[str], total: int | None, out: Path, arguments: Arguments) -> int:
    """Writes the answers into the file of --out; returns how many of the pictures can't be used."""
    from facefeat_jax.prediction.stream import write_answers

    written = write_answers(
        source.stream,
        names,
        out,
        tasks=source.tasks,
        about=source.about(),
        resume=arguments.resume,
        group=source.group,
        total=total,
        people=arguments.people,
    )
    earlier = f", {written.before:,} of them from an earlier call" if written.before else ""
    say(f"wrote the answers for {count(written.pictures, 'picture')} to {out}{earlier}")
    return written.bad
