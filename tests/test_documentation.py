"""Every code block of the site runs: in order, page by page, in a folder of its own, on tiny data.

- `python` and `sh` blocks run. `facefeat train` is shrunk as `--smoke` shrinks it; the data set is the tests' own.
- A `sh` block with a title is not run, for the reason that the title gives; nor is a block without a language, as in
  docs/benchmarks. Its commands have to parse, by the parser that they would meet, and what they name (targets, extras,
  scripts) has to be there.
- A `text` block is what a command printed.
- A `python` block with a title is a file's content, which another test puts in its place, or `downloads`: then a file
  of random weights stands in for the published one.
"""

from __future__ import annotations

import glob
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

import weights_conversion
from facefeat_jax import cli, config, factory, tasks
from facefeat_jax.data import _drawn as drawn
from facefeat_jax.training import loop  # noqa: F401 - first met with `apply_smoke` patched, it would keep the patch
from weights_conversion import timm_hub

from .conftest import ROOT
from .made import filled
from .system.test_errors import EXTRA

pytestmark = pytest.mark.docs

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NOT_RUN = {"downloads the packages", "takes minutes", "needs the downloads", "needs torch", "prints the fields"}
NOT_RUN |= {"needs a file of the notebook's", "with both in place", "with it in the project"}
NOT_RUN |= {"runs until Ctrl-C", "while a server runs", "needs docker"}
DOWNLOADS = "downloads"
# Pages that say what is in the weights that they train; on the others a narrower network does.
WITH_RESNET18 = {"weights.md"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title, text, and the line that it begins on."""

    language: str
    title: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text()
    found = []
    for match in re.finditer(r"^```(\w*)(?: title=\"([^\"\n]*)\")?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append(Block(match[1], match[2] or "", match[3], text[: match.start()].count("\n") + 2))
    assert len(found) == len(re.findall(r"^```", text, re.MULTILINE)) / 2, "a block that is not understood"
    return found


class Parsed(BaseException):
    """The arguments were parsed; nothing more was wanted."""


WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]


@pytest.fixture
def place(page, tmp_path, monkeypatch, avatars_dir, small_trunk, added_builders):
    """A working folder in which the commands of a page find what a reader would have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(avatars_dir))
    monkeypatch.setattr(drawn, "TRAIN_SIZE", 44)
    monkeypatch.setattr(drawn, "VAL_SIZE", 20)
    known = dict(tasks.TASKS)
    from facefeat_jax.models import registry

    trunks = dict(registry.ARCHITECTURES)
    apply_smoke = config.apply_smoke

    def small(one: config.TrainConfig) -> config.TrainConfig:
        trunk = one.model.trunk if page in WITH_RESNET18 else small_trunk
        shrunk = apply_smoke(one.replace(smoke=True, trunk=trunk, trainable=("none",)))
        return shrunk.replace(run=one.run, smoke=False, epochs=1)

    monkeypatch.setattr(config, "apply_smoke", small)
    yield tmp_path
    for table, before in ((tasks.TASKS, known), (registry.ARCHITECTURES, trunks)):
        table.clear()
        table.update(before)


def words_of(line: str) -> list[str]:
    """Splits a command as a shell does, file patterns included."""
    return [found for word in shlex.split(line, comments=True) for found in sorted(glob.glob(word)) or [word]]


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Runs a command in this process; returns its exit code."""
    if words[0] == "facefeat":
        return cli.main(words[1:])
    assert words[0] == "python", words
    if words[1] == "-m":
        monkeypatch.setattr(sys, "argv", words[2:])
        run = lambda: runpy.run_module(words[2], run_name="__main__", alter_sys=True)  # noqa: E731
    else:
        monkeypatch.setattr(sys, "argv", words[1:])
        monkeypatch.syspath_prepend(str(ROOT / "scripts"))
        run = lambda: runpy.run_path(str(ROOT / words[1]), run_name="__main__")  # noqa: E731
    try:
        run()
    except SystemExit as stopped:
        return stopped.code
    return 0


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks a command without running it."""
    if words[0] == "source":
        assert words[1] == ".venv/bin/activate"  # which `make` makes
    elif words[0] in ("curl", "docker"):
        pass  # of a server that runs, or of an image
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    elif words[:2] == ["pip", "install"]:
        name, extras = re.fullmatch(r"(\.)(?:\[([\w,]+)\])?", words[2]).groups()
        assert set(extras.split(",") if extras else ()) <= EXTRA.keys(), name
    elif "--help" in words:
        with pytest.raises(SystemExit) as stopped:
            call(words, monkeypatch)
        assert not stopped.value.code
    else:
        real = tyro.cli

        def stop(*arguments, **options):
            real(*arguments, **options)
            raise Parsed

        with monkeypatch.context() as patch:
            patch.setattr(tyro, "cli", stop)
            with pytest.raises(Parsed):
                call(words, patch)


def made_up(name: str) -> Path:
    """Writes a file with the names of a model of timm's on the Hub."""
    from facefeat_jax.models import abstract, get_architecture

    trunk = abstract(get_architecture(re.search(r"/(\w+)", name)[1]).build, num_classes=1000)
    weights_conversion.write("timms.safetensors", weights_conversion.to_torch(filled(trunk)))
    return Path("timms.safetensors")


def run_python(block: Block, page: str, names: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        if block.title == DOWNLOADS:
            patch.setattr(weights_conversion, "fetch", lambda name: Path("resnet18.safetensors"))
            patch.setattr(timm_hub, "fetch_hub_weights", lambda name, revision: made_up(name))
            numbers = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
            patch.setattr(timm_hub, "_config", lambda name, revision: {"pretrained_cfg": numbers})
        exec(compile("\n" * (block.line - 1) + block.text, f"docs/{page}", "exec"), names)


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_every_block_runs(page, place, monkeypatch):
    names: dict = {"__name__": "__main__"}
    for block in blocks_of(page):
        where = f"docs/{page}:{block.line}"
        if block.language == "text":
            continue
        if block.language == "python" and block.title not in ("", DOWNLOADS):
            # A file's content: an example, which is there, or what tests/test_a_fourth_task.py puts in its place.
            if page != "add_a_task.md":
                assert (ROOT / block.title).is_file() and block.text == f'--8<-- "{block.title}"\n', where
        elif block.language == "python":
            run_python(block, page, names, monkeypatch)
        else:
            assert block.language in ("sh", ""), where
            assert block.title in {"", *NOT_RUN}, where
            for line in block.text.splitlines():
                if block.title or not block.language:
                    # What the commands read is not there; only patterns have to be spelled out.
                    parse([word.replace("*", "x") for word in shlex.split(line, comments=True)], monkeypatch)
                else:
                    assert call(words_of(line), monkeypatch) in (0, None), f"{where}: {line}"


def test_commands_that_do_not_parse_are_seen(monkeypatch, tmp_path):
    parse(["facefeat", "train", "baseline", "--trunk", "resnet50"], monkeypatch)
    for words in (["train", "baseline", "--trnk", "resnet50"], ["evaluate"], ["train", "best-of-all"]):
        with pytest.raises((SystemExit, pytest.fail.Exception)):
            parse(["facefeat", *words], monkeypatch)
    with pytest.raises(AssertionError):
        parse(["pip", "install", ".[trian]"], monkeypatch)


def rows_of(page: str, heading: str) -> list[tuple[str, str]]:
    """Returns the two columns of the table below a line."""
    lines = (DOCS / page).read_text().partition(f"\n{heading}\n")[2].splitlines()[1:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table]


def test_the_calls_beside_timms_run(tmp_path, monkeypatch):
    """Those on pictures on shapes alone; what is downloaded is a file of made-up weights."""
    import jax

    from facefeat_jax.models import abstract, resnet18

    monkeypatch.chdir(tmp_path)
    weights_conversion.write("w.safetensors", weights_conversion.to_torch(filled(abstract(resnet18, num_classes=1000))))
    monkeypatch.setattr(weights_conversion, "fetch", lambda name: Path("w.safetensors"))
    monkeypatch.setattr(factory, "_drawn", lambda build, rngs: filled(abstract(build)))  # without compiling
    names: dict = {}
    exec(blocks_of("coming_from_timm.md")[0].text, names)
    rows = rows_of("coming_from_timm.md", "| timm and torchvision | here |")
    assert len(rows) > 25
    for theirs, ours in rows:
        code = re.match(r"`([^`]+)`", ours)[1]
        if "images" in code:
            images = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
            jax.eval_shape(lambda images, code=code: exec(code, {**names, "images": images}), images)
        else:
            exec(code, names)
        assert theirs
    assert names["model"].fc.out_features == 5


def test_the_table_of_stages_is_that_of_the_trunks():
    from facefeat_jax.models import abstract, get_architecture

    for trunks, stages in rows_of("coming_from_timm.md", "| trunk | stages: channels / stride |"):
        stated = re.findall(r"(\w+) (\d+) / (\d+)", stages)
        for name in re.findall(r"`(\w+)`", trunks)[:1]:  # the others are deeper, or of other blocks
            rows = {row.name: row for row in abstract(get_architecture(name).build).feature_info()}
            assert len(stated) == len(rows) or name.startswith("vit")
            for stage, channels, stride in stated:
                assert rows[stage][1:] == (int(channels), int(stride)), name
