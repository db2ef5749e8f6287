"""`facefeat models`."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from facefeat_jax.system.progress import show, show_json


@dataclass(frozen=True)
class Arguments:
    """Lists the trunks. With names, describes these trunks and their published weights."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of trunks to describe."""
    json: bool = False
    """Print everything as JSON."""


def run(arguments: Arguments) -> int:
    """Prints the table of trunks, or what there is to say of those that are named; returns the exit code.

    Raises:
      UserError: no trunk has that name.
    """
    from facefeat_jax.models._listing import describe, details, overview
    from facefeat_jax.models.registry import get_architecture, list_models

    names = arguments.names or tuple(list_models())
    described = [describe(get_architecture(name)) for name in names]
    if arguments.json:
        show_json(described)
    else:
        text = "\n\n".join(map(details, described)) if arguments.names else overview(described)
        show(*text.split("\n"))
    return 0
