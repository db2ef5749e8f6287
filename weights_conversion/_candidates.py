"""Which of the things that a checkpoint holds are the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weights_conversion._torch_objects import Opaque, Parameter, Tensor, UnreadableError

SAVE_PLAIN = "save model.state_dict() alone"

# What training frameworks put in front of every name: DataParallel, torch.compile, Lightning, averages of weights.
_WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "ema", "ema_model", "model_ema", "averaged_model")
# What an average of the weights is called, as a key or as a wrapper; the weights as trained come first.
_AVERAGE = re.compile(r"(^|[_.])(ema|swa|averaged?|avg)([_.]|$)", re.IGNORECASE)
# What the names of a network that is known here begin with: a trunk's first tensor, or the notebook's trunk.
_KNOWN = ("backbone.", "conv1.weight", "features.0.0.weight", "conv_proj.weight")
_AVERAGED_COUNT = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside `module.*`


@dataclass
class Reading:
    """How a file is to be read, and what has to be said of it."""

    path: Path  # the file
    key: str | None = None  # the set of weights that is wanted: a key of the checkpoint, or a wrapper of names
    notes: list[str] = field(default_factory=list)  # what was taken off or chosen; a line each

    def choose(self, sets: Mapping[str, Any], *, is_known: Callable[[str], bool]) -> str:
        """Returns the name of the set of weights to read, of several.

        Raises:
          UnreadableError: the wanted set is not there, or it is not clear which is meant.
        """
        listed = _listed(sets)
        if self.key is not None:
            if self.key not in sets:
                raise UnreadableError(f"it holds no weights under {self.key[:60]!r}", f"give one of {listed}")
            chosen, self.key = self.key, None
            return chosen
        known = [name for name in sets if is_known(name)] or list(sets)
        plain = [name for name in known if not _AVERAGE.search(name)]
        if len(plain or known) > 1:
            raise UnreadableError(f"it holds several sets of weights ({listed})", "choose one with --key NAME")
        chosen = (plain or known)[0]
        if len(known) > 1:
            others = _listed(name for name in known if name != chosen)
            self.notes.append(
                f"using the weights under {_quoted(chosen)}, not their average under {others}; "
                "choose others with --key NAME"
            )
        return chosen


def state_dict_of(value: Any, reading: Reading) -> dict[str, Tensor]:
    """Takes the tensors out of what was saved: a mapping of them, or a checkpoint that holds such a mapping.

    Raises:
      UnreadableError: it is neither, or a mapping of other things.
    """
    if not isinstance(value, dict):
        if isinstance(value, Opaque):
            raise UnreadableError(
                f"it holds a whole module, not weights alone (an object of {value.name!r}; none of it was run)",
                "load it where it was made and save its state_dict()",
            )
        kind = "one tensor" if isinstance(value, Tensor | Parameter) else f"a {_kind(value)}"
        raise UnreadableError(f"it holds {kind} where a mapping of names to tensors is expected", SAVE_PLAIN)
    sets = _sets_in(value)
    inside = ""
    if sets and not _is_known(name for name, entry in value.items() if _is_tensor(entry)):
        chosen = reading.choose(sets, is_known=lambda name: _is_known(sets[name]))
        value, inside = sets[chosen], f" in {_quoted(chosen)}"
    elif isinstance(value.get("state_dict"), dict):
        value, inside = value["state_dict"], " in 'state_dict'"
    if not value:
        raise UnreadableError(f"it holds no tensors{inside}", SAVE_PLAIN)
    return _all_tensors(value, inside)


def _sets_in(value: dict[Any, Any]) -> dict[str, dict[Any, Any]]:
    """Returns the mappings with tensors that a checkpoint holds, by key; those a level further in by `key.key`.

    Each is looked at once, however often the file refers to it.
    """
    found: dict[str, dict[Any, Any]] = {}
    seen: set[int] = {id(value)}
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(2):
        following: list[tuple[str, Any]] = []
        for prefix, outer in level:
            for name, entry in outer.items():
                if not isinstance(name, str) or not isinstance(entry, dict) or id(entry) in seen:
                    continue
                seen.add(id(entry))
                if any(map(_is_tensor, entry.values())):
                    found[prefix + name] = entry
                else:
                    following.append((f"{prefix}{name[:60]}.", entry))
        level = following
    return found


def _all_tensors(value: Mapping[Any, Any], inside: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    for name, entry in value.items():
        tensor = entry.data if isinstance(entry, Parameter) else entry
        if isinstance(name, str) and isinstance(tensor, Tensor):
            tensors[name] = tensor
        else:
            others.append(
                f"{_quoted(name)} ({_kind(entry)})" if isinstance(name, str) else f"a key that is a {_kind(name)}"
            )
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UnreadableError(
            f"it holds entries{inside} that are not tensors: {', '.join(others[:3])}{more}", SAVE_PLAIN
        )
    return tensors


def unwrapped(names: Iterable[str], reading: Reading) -> dict[str, str]:
    """Returns what each tensor that is wanted is called without what frameworks put in front of all names.

    Where nothing known is behind a wrapper, names stay as they are.

    Raises:
      UnreadableError: there are several sets of weights, and it is not clear which is meant.
    """
    names = list(names)
    taken = {name: name for name in names if name != _AVERAGED_COUNT}
    removed = ""
    while taken and not _is_known(taken.values()):
        firsts = {short.partition(".")[0] for short in taken.values()}
        if not firsts <= {*_WRAPPERS}:
            return {name: name for name in names}
        first = next(iter(firsts))
        if len(firsts) > 1:
            first = reading.choose(dict.fromkeys(sorted(firsts)), is_known=lambda _: True)
        taken = {name: short.partition(".")[2] for name, short in taken.items() if short.startswith(f"{first}.")}
        removed += f"{first}."
    if not removed:
        return {name: name for name in names}
    average = " (an average of weights)" if _AVERAGED_COUNT in names else ""
    reading.notes.append(f"the names begin with {removed!r}{average}, which is removed")
    return taken


def _is_known(names: Iterable[Any]) -> bool:
    return any(isinstance(name, str) and name.startswith(_KNOWN) for name in names)


def _is_tensor(entry: Any) -> bool:
    return isinstance(entry, Tensor | Parameter)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(_quoted, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _quoted(name: str) -> str:
    return repr(name[:60])


def _kind(value: Any) -> str:
    if isinstance(value, Opaque):
        return value.name[:60].lower() if value.name.isidentifier() else value.name[:60]
    if isinstance(value, dict):
        return "dict of tensors" if any(map(_is_tensor, value.values())) else "dict"
    return {"Name": "object", "ElementType": "dtype", "NoneType": "None"}.get(
        type(value).__name__, type(value).__name__.lower()
    )
