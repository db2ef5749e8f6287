"""The `facefeat` command: it parses the arguments, calls one library function and prints the result."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar, get_type_hints

import tyro

from facefeat_jax import __version__
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.escape import one_line
from facefeat_jax.system.figures import count
from facefeat_jax.system.main import run_and_exit, run_main
from facefeat_jax.system.progress import say, show
from facefeat_jax.system.runtime import require_usable_environment, use_compilation_cache

if TYPE_CHECKING:
    from facefeat_jax.config import TrainConfig
    from facefeat_jax.prediction.answers import Prediction
    from facefeat_jax.prediction.boxes import Boxes

    Answers = Callable[[Iterable[str]], Iterator[Prediction]]

Arguments = TypeVar("Arguments")

USAGE = """usage: facefeat COMMAND ...

Detects gender, glasses and shirt colour in pictures.

  prepare SOURCE --from DIR     check a downloaded data set and store it for training
  train RECIPE [--field value]  train a model: {recipes}
  evaluate RUN                  measure a trained model, overall and by group, and calibrate it
  audit DATASET|RUN             find likely wrong labels, duplicates and imbalance
  predict RUN IMAGE...          predict labels and probabilities for pictures
  convert FILE --to RUN         make a run from a PyTorch file
  export RUN --to torch FILE    write a run as a file that PyTorch loads
  models [NAME...]              list the trunks and their published weights
  launch N -- RECIPE ...        train with N processes, on one host or several
  benchmark                     measure the speed of each stage on this machine
  doctor                        print what a bug report needs

`facefeat COMMAND --help` describes a command. Exit codes: 0 done, 2 wrong call or input, 130 stopped by Ctrl-C, 143
stopped by SIGTERM (training can then be resumed)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    return run_main(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def command(*words: str) -> NoReturn:
    """Runs a command as the whole process. Scripts put their `words` before the arguments of the process."""
    run_and_exit(lambda: _run([*words, *sys.argv[1:]]))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        from facefeat_jax.config import list_recipes

        print(USAGE.format(recipes=", ".join(list_recipes())))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    if arguments[0] != "prepare" and not {"-h", "--help"} & {*arguments}:  # which load no JAX
        require_usable_environment()
    return COMMANDS[arguments[0]](arguments[1:])


def _parse(kind: type[Arguments], command: str, argv: Sequence[str], default: Arguments | None = None) -> Arguments:
    _set_help(kind)
    options: dict[str, Any] = {} if default is None else {"default": default}
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    return tyro.cli(kind, prog=f"facefeat {command}", args=list(argv), config=config, **options)


def _set_help(kind: type) -> None:
    """Takes the help of each field from the docstring below it: tyro itself keeps the line breaks of the source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for pair in itertools.pairwise(tree.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    kinds = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in docs:
            field.metadata = MappingProxyType({**field.metadata, "help": docs[field.name]})
        group = kinds[field.name]
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            _set_help(group)


# --- prepare


@dataclass(frozen=True)
class PrepareArguments:
    """Checks every picture of the downloaded data sets and stores them for training."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Data sets to prepare: fairface, glasses, apparel, or avatars (drawn by the project, without a download)."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", aliases=["--downloads"], metavar="DIR")] = None
    """The download: a folder or a zip file. For several data sets, the folder that contains one folder or zip file for
    each, by name (fairface/ or fairface.zip)."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    overwrite: bool = False
    """Replace data sets that are already prepared."""
    json: bool = False
    """Print the counts as JSON; for several data sets, as a list."""


def _prepare(argv: Sequence[str]) -> int:
    arguments = _parse(PrepareArguments, "prepare", argv)
    from facefeat_jax.data.builders import list_sources
    from facefeat_jax.data.dataset import default_data_dir
    from facefeat_jax.data.prepare import find_downloads, prepare

    if not arguments.sources:
        raise UserError(f"name a data set: facefeat prepare NAME. Choose from {', '.join(list_sources())}")
    # Find all of them before preparing the first, so that a wrong name is reported at once.
    downloads = find_downloads(arguments.sources, arguments.from_)
    data_dir = arguments.data_dir or default_data_dir()
    summaries = []
    for source, download in downloads.items():
        summaries.append(prepare(source, download, data_dir, overwrite=arguments.overwrite))
        if not arguments.json:
            show(*summaries[-1].lines())
    if arguments.json:
        answers = [summary.to_json() for summary in summaries]
        print(json.dumps(answers if len(answers) > 1 else answers[0], indent=2))
    return 0


# --- train


def _train(argv: Sequence[str]) -> int:
    from facefeat_jax.config import TrainConfig, apply_smoke, list_recipes, load_recipe

    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            print(
                f"usage: facefeat train RECIPE [--field value ...]\n\nRecipes: {', '.join(list_recipes())}. "
                "`facefeat train RECIPE --help` lists the fields and the recipe's values."
            )
            return 0
        raise UserError(f"name a recipe: facefeat train RECIPE [--field value]. Recipes: {', '.join(list_recipes())}")
    config = apply_smoke(_parse(TrainConfig, f"train {argv[0]}", argv[1:], load_recipe(argv[0])))
    _check_early(config)
    from facefeat_jax.commands import train
    from facefeat_jax.reporting.table import results_table
    from facefeat_jax.runs.run_folder import CURVES, REPORT
    from facefeat_jax.system.runtime import start_up

    start_up()
    if config.processes.distributed:
        from facefeat_jax.system.distributed import is_first, member

        with member(config.processes.heartbeat_s):
            results = train(config)
            if not is_first():
                return 0
    else:
        results = train(config)
    show(*results_table(results, sequential=config.batches.schedule == "sequential").split("\n"))
    print(f"trained in {results['seconds']:.0f} s{_time_by_stage(results['timings'])}")
    show(f"run:    {config.run}", f"report: {config.run / REPORT}", f"curves: {config.run / CURVES}")
    return 0


def _check_early(config: TrainConfig) -> None:
    """Checks whatever can be checked before the slow imports."""
    from facefeat_jax.config._effect import require_effect
    from facefeat_jax.data.dataset import default_data_dir, require_prepared
    from facefeat_jax.runs.run_config import check_folder, read_config
    from facefeat_jax.tasks import get_task

    if config.resume:
        read_config(config.run)
    elif not config.processes.distributed:  # with several processes, the first may have made the folder already
        require_effect(config)
        check_folder(config)
    for task in config.data.tasks:
        get_task(task)
    require_prepared(config.data.sources, config.data.data_dir or default_data_dir())
    from facefeat_jax.models.registry import get_architecture

    get_architecture(config.model.trunk)
    if config.model.weights_are_a_file and not Path(config.model.weights).exists():
        raise UserError(f"can't read weights from {config.model.weights}: there is no such file; check the path")


def _time_by_stage(timings: dict[str, float]) -> str:
    parts = {
        "starting": timings["start"],
        "reading pictures": timings["read"],
        "steps": timings["train"],
        "validation": timings["validate"],
    }
    listed = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    return f" ({listed}; {timings['compile_wait']:.1f} s of it waiting for the compiler)"


# --- launch


@dataclass(frozen=True)
class LaunchArguments:
    """Trains one model with several processes: facefeat launch N -- RECIPE [--field value]."""

    processes: tyro.conf.Positional[int]
    """Number of processes to start on this host."""
    total: int | None = None
    """Number of processes on all hosts. The default is the number on this host."""
    first: int = 0
    """Number, counted from 0, of the first process on this host."""
    coordinator: str | None = None
    """HOST:PORT of process 0. Required with several hosts."""
    devices_each: int | None = None
    """Number of this host's devices that each process uses. The default is all of them, for one process per host."""
    heartbeat_s: int = 60
    """Seconds without a sign of life after which a process counts as dead and the others are ended."""


def _launch(argv: Sequence[str]) -> int:
    dashes = list(argv).index("--") if "--" in argv else len(argv)
    training = list(argv[dashes + 1 :])
    arguments = _parse(LaunchArguments, "launch", argv[:dashes])
    from facefeat_jax.training.launch import Hosts, launch

    if not training:
        raise UserError("name a recipe: facefeat launch N -- RECIPE [--field value]")
    hosts = Hosts(
        arguments.processes,
        arguments.processes if arguments.total is None else arguments.total,
        arguments.first,
        arguments.coordinator,
        arguments.devices_each,
    )
    return launch(training, hosts, heartbeat_s=arguments.heartbeat_s)


# --- evaluate


@dataclass(frozen=True)
class EvaluateArguments:
    """Prints the metrics of every head on the validation pictures, with 95% confidence intervals.

    On the run's own data it also calibrates the run. `predict` then gives probabilities that match observed
    frequencies, and answers `unsure` where a head is not reliable. The metrics, the slices by group and the calibration
    are written into the run folder as JSON and CSV, and into its report and model card.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    data: tuple[str, ...] = ()
    """Names of prepared data sets. The default is the run's own."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is the run's."""
    batch_size: int | None = None
    """Pictures per batch. The default is the run's."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    error_rate: float = 0.05
    """Largest acceptable fraction of wrong answers. `predict` answers `unsure` where a head can't guarantee it."""
    json: bool = False
    """Print JSON."""


def _evaluate(argv: Sequence[str]) -> int:
    arguments = _parse(EvaluateArguments, "evaluate", argv)
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    if arguments.data:
        from facefeat_jax.data.dataset import default_data_dir, require_prepared

        require_prepared(arguments.data, arguments.data_dir or default_data_dir())
    from facefeat_jax.system.runtime import start_up

    start_up()
    from facefeat_jax.evaluation.assessment import assess_run
    from facefeat_jax.reporting._publish import publish
    from facefeat_jax.reporting.table import gap_lines, scores_table

    found = assess_run(
        arguments.run,
        sources=arguments.data or None,
        data_dir=arguments.data_dir,
        batch_size=arguments.batch_size,
        checkpoint=arguments.checkpoint,
        error_rate=arguments.error_rate,
    )
    if arguments.json:
        print(json.dumps(found.assessment.to_json(), indent=2))
    else:
        show(*scores_table(found.assessment.scores).split("\n"))
        for line in gap_lines(found.assessment):
            say(line)
    try:
        for line in publish(arguments.run, found):
            say(line)
    except UserError as error:
        # The metrics are printed already. A shared run may be read-only.
        say(f"not everything was saved: {error}")
    return 0


# --- audit


@dataclass(frozen=True)
class AuditArguments:
    """Looks for duplicate pictures, imbalance and, with a run, likely wrong labels.

    It writes a page with contact sheets and tables, and prints the counts.
    """

    target: tyro.conf.Positional[str]
    """Name of a prepared data set, or folder of a run to audit the data that it was trained on."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is the run's."""
    out: Path | None = None
    """Output folder. The default is audit/ in the run folder, or runs/audit-NAME."""
    json: bool = False
    """Print everything as JSON."""


def _audit(argv: Sequence[str]) -> int:
    arguments = _parse(AuditArguments, "audit", argv)
    from facefeat_jax.runs.run_config import require_audit_target

    require_audit_target(arguments.target, arguments.data_dir)
    from facefeat_jax.system.runtime import start_up

    start_up()
    from facefeat_jax.commands import audit
    from facefeat_jax.reporting.table import audit_lines

    made, folder = audit(arguments.target, data_dir=arguments.data_dir, out=arguments.out)
    if arguments.json:
        print(json.dumps(made.to_json(), indent=2))
    else:
        show(*audit_lines(made))
    say(f"page: {folder / 'audit.html'}")
    return 0


# --- predict


@dataclass(frozen=True)
class PredictArguments:
    """Prints the label and probability of every head for each picture, in the given order."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Picture files. `-` reads file names from standard input, one per line."""
    format: Literal["text", "json", "jsonl", "csv"] = "text"
    """Output format."""
    out: Path | None = None
    """Write to this .jsonl or .csv file, not to standard output. --resume continues an interrupted file."""
    resume: bool = False
    """Continue the file of --out. Give the same pictures in the same order; those with an answer are skipped."""
    json: bool = False
    """The same as --format json."""
    batch_size: int = 32
    """Pictures per batch."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    faces: bool = False
    """Find the faces in each picture and predict for each person: gender from the face, glasses from the head, shirt
    from the upper body. Needs the extra `faces`."""
    face_model: Path | None = None
    """Find faces with this YuNet ONNX file instead of OpenCV's Haar cascade."""
    boxes: Path | None = None
    """Predict for the faces in this CSV file. Its columns are file,left,top,right,bottom, in pixels or as fractions
    from 0 to 1."""
    draw: Path | None = None
    """Write copies of the pictures with boxes and labels into this folder."""
    explain: Path | None = None
    """For each picture, write an image into this folder that shows which parts support each answer (Grad-CAM)."""


def _predict(argv: Sequence[str]) -> int:
    arguments = _parse(PredictArguments, "predict", argv)
    if not arguments.images:
        raise UserError("name the pictures: facefeat predict RUN IMAGE...")

    if arguments.out is None and arguments.resume:
        raise UserError("--resume continues a file; name it with --out FILE")
    if arguments.out is not None and (arguments.json or arguments.format != "text"):
        raise UserError("--out chooses the format by the file's suffix, .jsonl or .csv; leave out --format and --json")
    if arguments.boxes and (arguments.faces or arguments.face_model):
        raise UserError("--boxes gives the faces and --faces finds them; give only one of them")
    people = bool(arguments.boxes or arguments.faces or arguments.face_model)
    if people and arguments.explain:
        raise UserError("--explain works on whole pictures; give it without --faces and --boxes")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size must be 1 or more, got {arguments.batch_size}")
    for file in (arguments.boxes, arguments.face_model):
        if file is not None and not file.exists():
            raise UserError(f"{file}: there is no such file; check the path")
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    if arguments.out is not None:
        from facefeat_jax.prediction.stream import check_out

        check_out(arguments.out, resume=arguments.resume)
    from facefeat_jax.prediction._output import lines
    from facefeat_jax.prediction.answers import unreadable
    from facefeat_jax.runs._about import heads
    from facefeat_jax.system.tables import stdin_names

    boxes = None
    if arguments.boxes:
        from facefeat_jax.prediction.boxes import read_boxes

        boxes = read_boxes(arguments.boxes)
        if boxes.are_shares:
            say(f"{boxes.path}: all boxes lie between 0 and 1: read as fractions of each picture's width and height")
    listed = None if arguments.images == ("-",) else arguments.images
    # A file of --out records its model, and so needs one; what --faces and `best` need may be missing too.
    needs_all = arguments.out or arguments.faces or arguments.face_model or arguments.checkpoint != "newest"
    refused = unreadable(listed) if listed and not needs_all else None
    about: dict[str, object] = {}
    answers: Answers
    if refused is not None and (found := heads(arguments.run)):
        tasks, answers = found, partial(map, refused.__getitem__)
    else:
        tasks, about, answers = _answers(arguments, boxes)
    bad = 0

    def counted(predictions):
        nonlocal bad
        for prediction in predictions:
            bad += prediction.error is not None
            yield prediction

    names: Iterable[str] = listed or stdin_names()
    if boxes:
        names = boxes.watched(names)
    if arguments.out is not None:
        from facefeat_jax.prediction.stream import write_answers

        group = arguments.batch_size
        if people:
            from facefeat_jax.prediction.people import WINDOW as group
        written = write_answers(
            answers,
            names,
            arguments.out,
            tasks=tasks,
            about=about,
            resume=arguments.resume,
            group=group,
            total=len(listed) if listed else None,
            people=people,
        )
        earlier = f", {written.before:,} of them from an earlier call" if written.before else ""
        say(f"facefeat: {count(written.pictures, 'picture')} in {arguments.out}{earlier}")
        bad = written.bad
    else:
        form = "json" if arguments.json else arguments.format
        for line in lines(counted(answers(names)), tasks, form, people=people):
            print(one_line(line) if sys.stdout and sys.stdout.isatty() else line)
    if bad:
        say(f"facefeat: {bad} of the pictures can't be used; the output has the reason for each")
    line, is_none = boxes.unused() if boxes else ("", False)
    if line:
        say(f"facefeat: {line}")
    return 2 if bad or is_none else 0


def _answers(arguments: PredictArguments, boxes: Boxes | None) -> tuple[tuple[str, ...], dict[str, object], Answers]:
    """Loads the model: returns its heads, what the answers depend on, and what gives them for files."""
    # Not start_up, which keeps freed memory: the memory of large pictures would add up.
    use_compilation_cache()
    from facefeat_jax.prediction.predictor import Predictor

    predictor = Predictor.from_run(
        arguments.run,
        batch_size=arguments.batch_size,
        checkpoint=arguments.checkpoint,
        explain=arguments.explain,
    )
    about: dict[str, object] = {}
    if arguments.out is not None:
        about = {"model": predictor.fingerprint(), "classes": predictor.spec.classes}
    if boxes or arguments.faces or arguments.face_model:
        from facefeat_jax.prediction.people import origin_of, people_of

        answers = people_of(predictor, boxes=boxes, face_model=arguments.face_model, draw=arguments.draw)
        if arguments.out is not None:
            about["people"] = origin_of(boxes=boxes, face_model=arguments.face_model)
    elif arguments.draw:
        from facefeat_jax.prediction.people import whole_of

        answers = whole_of(predictor, arguments.draw)
    else:
        answers = predictor.stream
    return tuple(predictor.spec.classes), about, answers


# --- convert, export


@dataclass(frozen=True)
class ConvertArguments:
    """Makes a run folder from a PyTorch file with the notebook's names (backbone.*, gender_head.*, ...)."""

    file: tyro.conf.Positional[Path]
    """The .pth or .safetensors file to read."""
    to: Path
    """Folder of the new run."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the outputs, as TASK=NAME,NAME,..., for files without class names."""
    trunk: str | None = None
    """Name of the trunk. The default is the trunk that matches the names and shapes of the weights."""
    image_size: int | None = None
    """Height and width of the pictures in pixels. The default is the file's value, or 224."""
    decode: Literal["as_notebook", "upright"] | None = None
    """How picture files become RGB. The default is the file's value, or `as_notebook`."""
    key: str | None = None
    """Key of the weights in a file with several sets, for example state_dict_ema."""
    json: bool = False
    """Print JSON."""


def _convert(argv: Sequence[str]) -> int:
    arguments = _parse(ConvertArguments, "convert", argv)
    if not arguments.file.exists():
        raise UserError(f"can't read weights from {arguments.file}: there is no such file; check the path")
    from facefeat_jax.exporting.conversion import convert

    classes = {}
    for item in arguments.classes:
        task, separator, text = item.partition("=")
        names = tuple(name.strip() for name in text.split(","))
        if not separator or not all(names) or len(set(names)) < len(names) or task.strip() in classes:
            raise UserError(f"--classes takes TASK=NAME,NAME,... with different names, once per task; got {item!r}")
        classes[task.strip()] = names
    made = convert(
        arguments.file,
        arguments.to,
        classes=classes,
        trunk=arguments.trunk,
        image_size=arguments.image_size,
        decode=arguments.decode,
        key=arguments.key,
    )
    if arguments.json:
        answer = {"run": str(made.run), "classes": made.spec.classes, "note": made.note, "notes": made.notes}
        print(json.dumps(answer, indent=2))
        return 0
    for note in made.notes:
        say(f"facefeat: {note}")
    for task, ordered in made.spec.classes.items():
        show(f"{task}: {', '.join(ordered)}")
    show(f"run: {made.run}")
    return 0


@dataclass(frozen=True)
class ExportArguments:
    """Writes a checkpoint of a run for PyTorch, with the notebook's names."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    file: tyro.conf.Positional[Path]
    """The file to write: .pth, .pt or .safetensors."""
    to: Literal["torch"] = "torch"
    """Format of the file."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    json: bool = False
    """Print JSON."""


def _export(argv: Sequence[str]) -> int:
    arguments = _parse(ExportArguments, "export", argv)
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    from facefeat_jax.exporting.conversion import export

    spec = export(arguments.run, arguments.file, arguments.checkpoint)
    if arguments.json:
        print(json.dumps({"file": str(arguments.file), "classes": spec.classes}, indent=2))
    else:
        show(f"{arguments.file}: class names, in the order of the outputs")
        show(*(f"  {task}: {', '.join(names)}" for task, names in spec.classes.items()))
    return 0


# --- models, doctor


@dataclass(frozen=True)
class ModelsArguments:
    """Lists the trunks. With names, describes these trunks and their published weights."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of trunks to describe."""
    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True)
class JsonArguments:
    """Prints versions, devices, memory, disk and caches, for a bug report."""

    json: bool = False
    """Print JSON."""


def _models(argv: Sequence[str]) -> int:
    arguments = _parse(ModelsArguments, "models", argv)
    from facefeat_jax.models._listing import describe, details, overview
    from facefeat_jax.models.registry import get_architecture, list_models

    names = arguments.names or tuple(list_models())
    described = [describe(get_architecture(name)) for name in names]
    if arguments.json:
        print(json.dumps(described, indent=2))
    elif arguments.names:
        print("\n\n".join(map(details, described)))
    else:
        print(overview(described))
    return 0


def _doctor(argv: Sequence[str]) -> int:
    arguments = _parse(JsonArguments, "doctor", argv)
    from facefeat_jax.data._row_store import store_folder
    from facefeat_jax.data.dataset import default_data_dir
    from facefeat_jax.system.doctor import examine

    found = examine({"data sets": default_data_dir(), "decoded pictures": store_folder()})
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for section, entries in found.items():
        show(section, *(f"  {name}: {value}" for name, value in entries.items()))
    return 0


# --- benchmark


def _benchmark(argv: Sequence[str]) -> int:
    from facefeat_jax.benchmarking.command import BenchmarkArguments

    return _parse(BenchmarkArguments, "benchmark", argv).run()


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "prepare": _prepare,
    "train": _train,
    "launch": _launch,
    "evaluate": _evaluate,
    "audit": _audit,
    "predict": _predict,
    "convert": _convert,
    "export": _export,
    "models": _models,
    "benchmark": _benchmark,
    "doctor": _doctor,
}

if __name__ == "__main__":
    command()
