"""The arguments of a command, read from its dataclass: their help and names stand here, tyro parses the values.

An argument's help is the docstring below its field. A dataclass in the dataclass is a group of them, and so is each
entry of a `GROUPS` of the class. `BARE` of the class has the values of options that may stand without one.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import os
import shutil
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from facefeat_jax.system.errors import UserError, nearest
from facefeat_jax.system.progress import show

Arguments = TypeVar("Arguments")

_WIDEST = 100  # columns; longer lines are hard to read
_INDENT = 22
_VALUES = {int: "N", float: "X", Path: "PATH", str: "NAME"}
_WITHOUT_DEVICE = ("prepare", "models")
_DEVICES = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "tpu": "tpu"}


@dataclass(frozen=True)
class Option:
    """An argument of a command.

    Attributes:
      names: how it is typed; empty where its place says which it is.
      value: what stands for its value; empty for a switch.
      help: what it does.
      default: its default as text; empty where the help says what happens without it.
      group: heading that it stands under; empty for the first ones.
      is_required: whether it has to be given.
    """

    names: tuple[str, ...]
    value: str
    help: str
    default: str = ""
    group: str = ""
    is_required: bool = False

    @property
    def usage(self) -> str:
        """The names and the value, as the help shows them."""
        return " ".join(filter(None, (", ".join(self.names), self.value)))

    @property
    def text(self) -> str:
        """The help with the default."""
        return f"{self.help} (default: {self.default})" if self.default else self.help


DEVICE = Option(
    ("--device",), "{cpu,gpu,tpu}", "Compute on devices of this kind. Without it, JAX chooses, or $JAX_PLATFORMS does."
)


def options_of(kind: type, default: Any = None) -> list[Option]:
    """Returns the arguments of a command: first those that stand by place, then those without a group.

    Args:
      kind: the dataclass of its arguments.
      default: an instance with the defaults, where they are not those of the fields.
    """
    return _in_order(_options(kind, default))


def _in_order(options: Iterable[Option]) -> list[Option]:
    return sorted(options, key=lambda option: (bool(option.names), bool(option.group)))


def _options(kind: type, default: Any) -> Iterator[Option]:
    docs, hints = _docs(kind), get_type_hints(kind, include_extras=True)
    groups = {name: group for group, names in getattr(kind, "GROUPS", {}).items() for name in names}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        marks = getattr(hint, "__metadata__", ())
        plain = get_args(hint)[0] if marks else hint
        value = _default(field) if default is None else getattr(default, field.name)
        if isinstance(plain, type) and dataclasses.is_dataclass(plain):
            heading = (plain.__doc__ or "").partition("\n")[0]
            yield from (dataclasses.replace(option, group=heading) for option in _options(plain, value))
        elif tyro.conf.Suppress not in marks:
            shown = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), "")
            main = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
            aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
            if tyro.conf.Positional in marks:
                several = get_origin(plain) is tuple
                shown = shown or (field.name.removesuffix("s") + "..." if several else field.name).upper()
                yield Option((), shown, docs[field.name])
            else:
                names = [f"--{main.replace('_', '-')}", *aliases]
                if plain is bool and value:  # a recipe has switched it on
                    names.append(_off(names[0]))
                group = groups.get(field.name, "")
                required = value is dataclasses.MISSING
                yield Option(tuple(names), shown or _value(plain), docs[field.name], _as_text(value), group, required)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _off(name: str) -> str:
    return f"--no-{name[2:]}"


def _as_text(value: Any) -> str:
    if value is None or value is False or value in ((), "") or value is dataclasses.MISSING:
        return ""
    if value is True:
        return "on"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _value(kind: Any) -> str:
    """Returns what stands for a value of a type."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) is tuple:
        return f"{_value(get_args(kind)[0])}..."
    if get_origin(kind) in (Union, types.UnionType):
        return _value(next(one for one in get_args(kind) if one is not type(None)))
    return _VALUES.get(get_args(kind)[0] if hasattr(kind, "__metadata__") else kind, "")


def _docs(kind: type) -> dict[str, str]:
    """Returns the docstring below each field, as one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for pair in itertools.pairwise(tree.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    return docs


def usage_of(command: str, kind: type) -> str:
    """Returns a command and what it has to be given."""
    given = [option.usage for option in options_of(kind) if not option.names or option.is_required]
    return " ".join(["facefeat", command, *given, "[options]", *getattr(kind, "AFTER", ())])


def help_of(command: str, kind: type, default: Any = None) -> str:
    """Returns what `--help` prints, as wide as the terminal; see `parse`."""
    width = min(shutil.get_terminal_size().columns, _WIDEST) - 1
    options = options_of(kind, default)
    blocks = [f"usage: {usage_of(command, kind)}"]
    blocks += [_wrapped(paragraph, width) for paragraph in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]
    if command not in _WITHOUT_DEVICE:
        options = _in_order([*options, DEVICE])
    for group, members in itertools.groupby(options, lambda option: option.group):
        blocks.append(
            "\n".join([*([_wrapped(group, width)] if group else []), *(_lines(one, width) for one in members)])
        )
    return "\n\n".join(blocks)


def _lines(option: Option, width: int) -> str:
    usage = f"  {option.usage}"
    text = _wrapped(option.text, width, " " * _INDENT)
    return usage.ljust(_INDENT) + text.lstrip() if len(usage) <= _INDENT - 2 else f"{usage}\n{text}"


def _wrapped(text: str, width: int, indent: str = "") -> str:
    joined = " ".join(text.split())
    return textwrap.fill(joined, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def parse(kind: type[Arguments], command: str, argv: Sequence[str], default: Arguments | None = None) -> Arguments:
    """Parses the arguments of a command.

    Args:
      kind: the dataclass of its arguments.
      command: its name.
      argv: what was typed.
      default: an instance with the defaults, where they are not those of the fields.

    Raises:
      UserError: an option is unknown.
      SystemExit: help was asked for, or an argument can't be parsed; it is printed.
    """
    options = options_of(kind, default)
    if {"-h", "--help"} & {*argv}:
        show(*help_of(command, kind, default).split("\n"))
        sys.stdout.flush()  # here, where what can't be written is still an error of the command
        raise SystemExit(0)
    known = [name for option in [*options, DEVICE] for name in option.names]
    if default is not None:  # of a recipe, whose switches go both ways
        known += [_off(option.names[0]) for option in options if option.names and not option.value]
    for word in argv:
        given = word.partition("=")[0].replace("_", "-")
        if given.startswith("--") and given not in known:
            near = nearest(given, known)
            meant = f"Did you mean {near}? " if near else ""
            raise UserError(f"facefeat {command} has no option {given}. {meant}--help lists them all")
    argv = list(_with_bare(argv, getattr(kind, "BARE", {})))
    config = [tyro.conf.OmitArgPrefixes, *([] if default else [tyro.conf.FlagCreatePairsOff])]
    config.append(tyro.conf.PositionalMetavarFromFieldName)
    given_default: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=f"facefeat {command}", args=argv, config=tuple(config), **given_default)


def _with_bare(argv: Sequence[str], values: Mapping[str, str]) -> Iterator[str]:
    """Yields what was typed, with a value for each option that stands without one where it may."""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue="-"):
        yield word
        if word in values and following.startswith("-"):
            yield values[word]


def take_device(argv: Sequence[str]) -> list[str]:
    """Returns the arguments without `--device KIND`, which is set for JAX: it works the same for all commands.

    Raises:
      UserError: there is no such kind.
    """
    rest, words = [], iter(argv)
    for word in words:
        name, separator, kind = word.partition("=")
        if name != "--device":
            rest.append(word)
            continue
        kind = kind if separator else next(words, "")
        if kind not in _DEVICES:
            raise UserError(f"--device takes {', '.join(_DEVICES)}, got {kind!r}")
        os.environ["JAX_PLATFORMS"] = _DEVICES[kind]
    return rest
