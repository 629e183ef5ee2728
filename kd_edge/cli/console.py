"""What every verb shares: where to print, common options, plain JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDE = 160
"""Columns where no terminal says how many it has: a log must not be folded at 80."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDE)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with the recordings; else KD_EDGE_DATA."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print figures as JSON on standard output, nothing else.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, dotted: student.epochs=20."),
]


def print_json(values: Any) -> None:
    """Write figures as indented JSON to standard output."""
    plain = to_jsonable_python(values, fallback=_of_numpy)
    sys.stdout.write(json.dumps(plain, indent=2) + "\n")


def _of_numpy(values: Any) -> Any:
    """The arrays and scalars that pydantic does not know."""
    return values.tolist()


NAMED = 5
"""So many faulty samples are named; the rest is a count."""


def faults(skipped: Mapping[str, str], what: str) -> str:
    """Named faulty samples as extra lines; an empty string when there is none."""
    if not skipped:
        return ""
    named = [f"\n  {escape(name)}: {escape(why)}" for name, why in list(skipped.items())[:NAMED]]
    more = f"\n  and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"\n[yellow]{len(skipped)} samples {what}:[/yellow]{''.join(named)}{more}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; every column but the first is right-aligned."""
    built = Table(box=None, pad_edge=False)
    for position, name in enumerate(header):
        built.add_column(name, justify="left" if position == 0 else "right")
    for row in rows:
        built.add_row(*row)
    return built
