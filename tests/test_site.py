"""The site: few pages in the navigation, all others linked, and pages that follow from the source."""

from __future__ import annotations

import ast
import re

from .conftest import ROOT

DOCS = ROOT / "docs"
NAVIGATION = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


def test_the_navigation_is_short_and_begins_with_the_name():
    assert len(NAVIGATION) <= 15 and len(set(NAVIGATION)) == len(NAVIGATION)
    assert "nav:\n  - facefeat_jax: index.md\n" in (ROOT / "mkdocs.yml").read_text()
    assert (DOCS / "index.md").read_text().startswith("# facefeat_jax\n")


def test_every_other_page_can_be_reached_by_links():
    reached, left = set(), [DOCS / page for page in NAVIGATION]
    while left:
        page = left.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
        left += [page.parent / target for target in targets if not target.startswith("http")]
    assert {path.resolve() for path in DOCS.rglob("*.md")} <= reached


def test_the_command_reference_is_what_the_parser_says(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "lab"))
    import write_command_reference as reference

    assert reference.PAGE.read_text() == reference.page(), "run scripts/lab/write_command_reference.py"


def texts_of_the_source() -> set[str]:
    """Returns the fixed parts of all texts in the package, what is filled in left out."""
    found = set()
    for path in (ROOT / "facefeat_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found |= set("".join(map(str, parts)).split("\0"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_of_the_troubleshooting_page_is_in_the_source():
    messages = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) == 20
    texts = texts_of_the_source()
    for message in messages:
        parts = [part for part in message.split("…") if part.strip(" ':")]
        assert parts, message
        for part in parts:
            assert any(part.strip() in text for text in texts), message


def test_the_pictures_of_the_readme_are_made_by_a_command(trained_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "lab"))
    from PIL import Image

    import make_images

    monkeypatch.setattr(make_images, "_BROWSERS", ())
    make_images.main(trained_run, tmp_path)
    sizes = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            sizes[path.name] = picture.size
    assert sizes.keys() == {"people.png", "curves.png"} and all(max(size) > 500 for size in sizes.values())
