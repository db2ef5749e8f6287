"""Text from data where people and programs see it: no escape sequences, no HTML, no links, no figure that lies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import facefeat_jax
from facefeat_jax.system import markdown, progress
from facefeat_jax.system import text as texts
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import run_main
from facefeat_jax.system.text import one_line

HOSTILE = [
    "\x1b[31mred\x1b]0;title\x07",
    "line\nbreak\r\x9b2J\x00",
    "\u202egnp.exe",
    "[red]markup[/red] :smile:",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(2)) ![y](http://z) <https://a> https://a.bc www.a.bc",
    "**b** _i_ `c` | cell | ~~s~~ &amp; $x$",
    "1. item",
    "# heading",
    "- item",
    "    code",
    "caf\udce9\udc9b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_messages_hold_no_control_characters_and_no_markup(text, capsys):
    progress.say(text)
    progress.show(text)

    def fail():
        raise UserError(text)

    assert capsys.readouterr() == (f"{one_line(text)}\n", f"{one_line(text)}\n")
    assert run_main(fail) == 2
    for line in (f"{one_line(text)}\n", capsys.readouterr().err):
        assert line.endswith("\n") and line[:-1].isprintable()
        line.encode()


def test_what_is_harmless_is_shown_as_it_is():
    for text in ("é ü 漢字 😀", "narrow\u202fspace", "می\u200cخواهم", "back\\slash"):
        assert one_line(text) == text
    assert one_line("caf\udce9\udc9b", keep_bytes=True) == "caf\udce9\\x9b"


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_name_as_it_is(text):
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def shown(source: str) -> tuple[str, set[str]]:
        found, kinds = "", set()
        for token in parser.parse(source):
            kinds.add(token.type)
            for part in token.children or ():
                kinds.add(part.type)
                found += part.content
        return found, kinds

    for before in ("", "- ", "a "):
        found, kinds = shown(before + markdown.escaped(text))
        assert found.strip() == f"{before.removeprefix('- ')}{one_line(text)}".strip()
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "em_open", "heading_open", "s_open"}
        assert ("bullet_list_open" in kinds) == (before == "- ")
    assert markdown.escaped("32.8% (21.9% to 43.8%)") == "32.8% (21.9% to 43.8%)"
    found, kinds = shown(f"a {markdown.code(text)} b")
    assert kinds == {"paragraph_open", "inline", "paragraph_close", "text", "code_inline"}
    cells = "\n".join(markdown.table(["a", "b"], [[markdown.escaped(text), 1]]))
    assert sum(token.type == "td_open" for token in parser.parse(cells)) == 2


def test_a_figure_contradicts_nothing():
    accuracy, points = texts.format_accuracy, texts.format_points
    assert [accuracy(value) for value in (0.0, 0.0001, 0.5, 0.99999, 1.0)] == [
        "0.0%",
        "0.1%",
        "50.0%",
        "99.9%",
        "100.0%",
    ]
    assert [accuracy(value, 0) for value in (0.0, 0.001, 0.999, 1.0)] == ["0%", "1%", "99%", "100%"]
    assert [points(value) for value in (-0.0001, -0.01, 0.0)] == ["0.0", "-1.0", "0.0"]
    area = texts.format_area
    assert [area(value) for value in (0.0, 0.0001, 0.9999, 1.0, None)] == ["0.000", "0.001", "0.999", "1.000", "-"]
    assert area(0.9999, 2) == "0.99"
    assert texts.format_loss(-0.0) == "0.0000"
    assert texts.format_given(0.05) == "5%" and texts.format_given(0.00012) == "0.012%"
    assert texts.decimals_apart(0.0532, 0.0528) == 2
    assert texts.decimals_apart(0.0532, 0.0532) == texts.decimals_apart(0.1, 0.2) == 1
    assert texts.format_distinct(0.119712, 0.119714) == ("0.119712", "0.119714")
    assert texts.format_distinct(0.5, 0.5) == ("0.5", "0.5") and texts.format_distinct(0.1, 0.25) == ("0.1", "0.25")
    sizes = [texts.format_size(size) for size in (0, 3.44 * 2**20, 9.97 * 2**20, 816.4 * 2**20, 7.517 * 2**30)]
    assert sizes == ["0 MiB", "3.4 MiB", "10 MiB", "816 MiB", "7.52 GiB"] and texts.format_size(2**34, 0) == "16 GiB"
    assert texts.count(1, "picture") == "1 picture" and texts.count(0, "picture") == "0 pictures"


def test_each_format_is_written_in_one_place():
    """Whoever writes a table, a page or a message anew takes the escaping with it."""
    package = Path(facefeat_jax.__file__).parent
    sources = {
        str(path.relative_to(package)): path.read_text()
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "benchmarking"
    }

    def holding(pattern: str) -> set[str]:
        return {name for name, text in sources.items() if re.search(pattern, text)}

    assert holding(r"csv\.(writer|DictWriter)") == {"system/tables.py"}
    assert holding(r"csv\.(reader|DictReader)") == {
        "system/tables.py",
        "data/dataset.py",
        "data/_croissant.py",  # the header of a listing
        "prediction/stream.py",
    }
    assert holding(r"\bprint\(") == {"cli.py", "serving/_log.py", "system/main.py", "system/progress.py"}
    assert holding(r"jinja2\.Environment|\bMarkup\b") == {"reporting/_pages.py"}
    assert holding(r"Console\(") == {"system/progress.py"}
