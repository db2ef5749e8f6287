"""Where in a download its set lies: of several places that could be it, which are taken, and why.

A place is a folder whose folders are those of the set's classes. The halves that a set ships in (`train/` and `test/`,
say) are one set and taken together; the same files once more are taken once; of different sets none is chosen silently.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import identity
from facefeat_jax.system.text import count as number_of

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Files that show where a set lies."""

HALVES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"})
"""Names, in any case, of folders that hold a part of a set."""


_COMPARED = 50  # files of two folders


@dataclass
class Place:
    """Where a set lies in a listing.

    Attributes:
      root: what precedes the names of all its files, with a `/`, or empty.
      inner: what follows it, before the folders of the classes: an empty text, or the halves (`train/`, `test/`).
      copies: files that are not taken, as another has the same content: by name, that one's name.
      notes: what was taken and why, where there was a choice.
    """

    root: str = ""
    inner: tuple[str, ...] = ("",)
    copies: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def folder_of(self, name: str) -> str | None:
        """Returns the folder of a class that a file lies directly in; None where it lies elsewhere."""
        folder, _, _ = name.removeprefix(self.root).rpartition("/")
        before, _, last = folder.rpartition("/")
        inner = f"{before}/" if before else ""
        return last if name.startswith(self.root) and folder and inner in self.inner else None


def find_place(
    names: Iterable[str],
    is_wanted: Callable[[str], bool],
    *,
    content: Callable[[str], Hashable] | None = None,
    is_whole: Callable[[Collection[str]], bool] = lambda _: True,
) -> Place:
    """Returns where in a listing a set lies.

    Args:
      names: the listing.
      is_wanted: whether a folder of that name is one of a class.
      content: returns what is the same for files of the same content; asked only where there are several places. The
        default goes by the names inside a place.
      is_whole: whether these folders are enough for a set.

    Raises:
      UserError: there are several sets, and none of them is nearer to the top and larger than the others.
    """
    roots: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) > 1 and is_wanted(parts[-2]) and name.lower().endswith(PICTURE_SUFFIXES):
            roots.setdefault("".join(f"{part}/" for part in parts[:-2]), []).append(name)
    if len(roots) < 2:
        return Place(next(iter(roots), ""))
    sets: dict[str, list[str]] = {}
    for root in sorted(roots, key=_depth):
        sets.setdefault(_set_of(root), []).append(root)
    keys = {
        root: {name: content(name) if content else name.removeprefix(_set_of(root)) for name in sorted(files)}
        for root, files in roots.items()
    }
    taken, notes = _choose(sets, keys, is_whole)
    members = sets[taken]
    copies: dict[str, str] = {}
    seen: dict[Hashable, str] = {}
    for root in members:
        copies |= {name: seen[key] for name, key in keys[root].items() if key in seen}
        seen |= {key: name for name, key in keys[root].items() if key not in seen}
    if len(members) == 1:
        return Place(members[0], notes=notes)
    count = sum(len(roots[root]) for root in members) - len(copies)
    again = f"; {number_of(len(copies), 'picture')} that appear twice are used once" if copies else ""
    notes.append(f"read together, as parts of one set: {_listed(members)} ({number_of(count, 'picture')}){again}")
    return Place(taken, tuple(root.removeprefix(taken) for root in members), copies, notes)


def fairface_root(
    names: Iterable[str], named: Collection[str], content: Callable[[str], Hashable] | None = None
) -> tuple[str, str]:
    """Returns what precedes `train/` and `val/` of FairFace in a listing, and a note where there was a choice.

    FairFace ships each face twice under the same name, with a margin of 0.25 and of 1.25: the pictures are others. The
    margin of 1.25, which is the baseline's, is known by the 125 in the folder's or zip's name.

    Args:
      names: the listing.
      named: `files.identity` of the pictures that the label tables name.
      content: as in `find_place`; asked of a few files.

    Raises:
      UserError: there are several, and neither the name nor the content decides.
    """
    roots: dict[str, dict[str, str]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) > 1 and parts[-2] in ("train", "val") and name.lower().endswith(PICTURE_SUFFIXES):
            root = "".join(f"{part}/" for part in parts[:-2])
            file = identity(name.removeprefix(root))
            roots.setdefault(root, {})
            if file in named:
                roots[root][file] = name
    order = sorted(roots, key=_depth)
    labelled = [root for root in order if roots[root]]
    if len(labelled) < 2:
        return next(iter(labelled or order), ""), ""
    first, *others = [root for root in labelled if "125" in root] or labelled
    different = [root for root in others if not _same(roots[first], roots[root], content)]
    if different:
        raise UserError(
            f"there are pictures for the label files in several places: {_listed([first, *different])}; "
            "the baseline uses the margin 1.25: name that folder with --from, or remove the others"
        )
    others = [root for root in labelled if root != first]
    return first, f"the pictures are read from {_listed([first])}, not from {_listed(others)}"


def _same(ones: dict[str, str], others: dict[str, str], content: Callable[[str], Hashable] | None) -> bool:
    """Returns whether the others are copies of files of the same names, as far as some of them show."""
    both = sorted(ones.keys() & others.keys())[:_COMPARED]
    return ones.keys() >= others.keys() and (
        content is None or all(content(ones[file]) == content(others[file]) for file in both)
    )


def _choose(
    sets: dict[str, list[str]],
    keys: dict[str, dict[str, Hashable]],
    is_whole: Callable[[Collection[str]], bool],
) -> tuple[str, list[str]]:
    """Returns the set that is taken, with notes about the others."""
    contents = {candidate: {key for root in roots for key in keys[root].values()} for candidate, roots in sets.items()}
    order = sorted(sets, key=lambda candidate: _depth(sets[candidate][0]))
    notes = []
    left = list(order)
    for one in reversed(order):
        of = next((other for other in left if other != one and contents[one] <= contents[other]), None)
        if of is not None:
            left.remove(one)
            notes.append(f"{_listed(sets[one])} holds the same files as {_listed(sets[of])} and is not read again")
    folders = {
        candidate: {name.split("/")[-2] for root in sets[candidate] for name in keys[root]} for candidate in left
    }
    whole = [candidate for candidate in left if is_whole(folders[candidate])] or left
    first = whole[0]
    nearest = _depth(sets[first][0])[0]
    for other in whole[1:]:
        if _depth(sets[other][0])[0] == nearest or len(contents[other]) > len(contents[first]):
            found = [
                f"{_listed(sets[candidate])} ({number_of(len(contents[candidate]), 'picture')})" for candidate in whole
            ]
            raise UserError(
                f"there are several sets in the download: {' and '.join(found)}; name the folder of one with --from, "
                "or move what belongs together into one folder"
            )
    for other in left:
        if other != first:
            notes.append(
                f"{number_of(len(contents[other]), 'picture')} in {_listed(sets[other])} are not used: the set is "
                f"read from {_listed(sets[first])}; --from names another folder"
            )
    return first, notes


def _set_of(root: str) -> str:
    """Returns the place of the set that a place may be a half of."""
    above, _, last = root.rstrip("/").rpartition("/")
    if last.casefold() not in HALVES:
        return root
    return f"{above}/" if above else ""


def _depth(root: str) -> tuple[int, str]:
    return root.count("/"), root


def _listed(roots: Sequence[str]) -> str:
    return " and ".join(root or "the top folder" for root in roots)
