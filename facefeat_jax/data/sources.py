"""The description of a data set: its labels, origin, terms and layout on disk.

Each one says it in its builder (`facefeat_jax.data.builders`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facefeat_jax.data.trees import Tree, open_tree
from facefeat_jax.system.errors import UserError


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
      name: name on the command line.
      version: `major.minor.patch` of the prepared data; raise it when the selection or the content of a record changes.
      tasks: the tasks that it labels.
      description: one paragraph for the prepared data set.
      terms: terms of use.
      groups: names of further properties of a picture, as text; blank where unknown. Drawn sets name their groups
        themselves.
      downloads: what to download, and from where; empty where the pictures are drawn.
      homepage: web page of its makers, or empty.
      layout: how the download must look, or empty.
      citation: BibTeX, or empty.
    """

    name: str
    version: str
    tasks: tuple[str, ...]
    description: str
    terms: str
    groups: tuple[str, ...] = ()
    downloads: tuple[tuple[str, str], ...] = ()
    homepage: str = ""
    layout: str = ""
    citation: str = ""

    @property
    def is_drawn(self) -> bool:
        """Whether the pictures are drawn, so that nothing has to be downloaded."""
        return not self.downloads


def open_source(source: Source, path: Path | None) -> Tree:
    """Opens a source's download.

    Raises:
      UserError: `path` is None or nothing is there (then the message says what to download, from where, under which
        terms, and which command comes then), or it can't be read.
    """
    if path is None:
        raise UserError(f"{source.name} must be downloaded first: {instructions(source, Path('DIR'))}")
    if not path.exists():
        raise UserError(f"{path} does not exist. {instructions(source, path)}")
    return open_tree(path)


def not_as_expected(source: Source, path: Path, found: str) -> UserError:
    """Returns the error for a download that does not look as it should."""
    return UserError(f"{path} does not look like {source.name}: {found}. {instructions(source, path)}")


def prepare_command(source: Source) -> str:
    """Returns the command that prepares the source."""
    return f"facefeat prepare {source.name}" + ("" if source.is_drawn else " --from DIR")


def instructions(source: Source, path: Path) -> str:
    """Returns what to download, from where, under which terms, where to put it, and which command comes then."""
    files = "; ".join(f"{what} from {where}" for what, where in source.downloads)
    return (
        f"Download {files} (terms: {source.terms}; see {source.homepage}), put it in a folder ({source.layout}), "
        f"then run: facefeat prepare {source.name} --from {path}"
    )
