"""What every verb shares: where to print, common options, plain JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kd_edge.errors import ConfigError, KdEdgeError, printable

WIDE = 160
"""Columns where no terminal says how many it has: a log must not be folded at 80."""


class _Standard:
    """Standard output or error as it is at the moment, with faults that end the work in one line or not at all.

    Args:
        name: ``stdout`` or ``stderr``.
        may_be_lost: Whether the work goes on where it cannot be written.
    """

    def __init__(self, name: str, *, may_be_lost: bool) -> None:
        self._name, self._may_be_lost = name, may_be_lost

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)

    def write(self, text: str) -> int:
        with self._watched():
            getattr(sys, self._name).write(text)
        return len(text)

    def flush(self) -> None:
        with self._watched():
            getattr(sys, self._name).flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            if not self._may_be_lost:
                raise  # Rich and Typer leave quietly, with exit code 1
        except OSError as error:
            if not self._may_be_lost:
                raise ConfigError(
                    f"standard output cannot be written ({error.strerror})", "an output that takes it", "free space"
                ) from error


def _console(name: str, *, may_be_lost: bool) -> Console:
    stream = getattr(sys, name)  # None where a supervisor has closed it
    width = None if stream is not None and stream.isatty() else WIDE
    return Console(file=cast(TextIO, _Standard(name, may_be_lost=may_be_lost)), highlight=False, width=width)


out = _console("stdout", may_be_lost=False)
err = _console("stderr", may_be_lost=True)


class _LogLines(logging.Handler):
    """What kd-edge logs, on standard error: a line each, whatever the names and messages hold; tracebacks, too."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = [record.getMessage()]
        if record.exc_info:
            lines += "".join(traceback.format_exception(*record.exc_info)).splitlines()
        for line in lines:
            err.print(escape(printable(line)), soft_wrap=True)


def show_log() -> None:
    """Show warnings of kd-edge from now on, and none of Matplotlib's on its folders: it does without."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    log = logging.getLogger("kd_edge")
    if not any(isinstance(handler, _LogLines) for handler in log.handlers):
        log.addHandler(_LogLines(logging.WARNING))


def open_closed_streams() -> None:
    """Put the null device where a supervisor has closed a standard stream: verbs that act do not need it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the closed stream's number, which the next file would take, and what libraries print with it.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def flush_streams() -> bool:
    """Write what is left of standard output and error; whether all of the output could be written."""
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            written = written and stream is not sys.stdout
            # Python tries again while it ends, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return written


def print_text(text: str) -> None:
    """Write text to standard output as it is."""
    out.file.write(text)
    out.file.flush()


DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with the recordings; else KD_EDGE_DATA."),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="onnxruntime, openvino, ncnn; cuda, tensorrt, tensorrt-rtx; or auto: the best that is ready.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print figures as JSON on standard output, nothing else.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the recipe, dotted: student.epochs=20, stages.head.epochs=20; null takes an optional "
        "one away.",
    ),
]


def typed(context: typer.Context) -> list[str]:
    """Long names of the options that were typed, in the order of the help page, ``--json`` apart."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.param_type_name == "option"
        and parameter.name is not None
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    return [option for option in given if option != "--json"]


def allow_only(context: typer.Context, mode: str, *allowed: str, fix: str = "leave them out") -> None:
    """Refuse what was typed beside an option that makes the verb another program, and would be ignored.

    Args:
        context: Of the command.
        mode: What was asked for, for example ``--recording``.
        allowed: Options that go with it; ``--json`` always does.
        fix: What to do about it.

    Raises:
        ConfigError: Others were typed; all are named.
    """
    wrong = [option for option in typed(context) if option not in (mode, *allowed)]
    if wrong:
        expected = f"{', '.join(allowed)} beside it" if allowed else "it alone"
        raise ConfigError(f"{mode} with {', '.join(wrong)}", expected, fix)


def checked(*checks: Callable[[], Any]) -> list[Any]:
    """What each of several checks of options gives; all that are wrong are told in one line.

    Raises:
        KdEdgeError: Of one that is wrong its own, of several all together.
    """
    values, wrong = [], list[KdEdgeError]()
    for check in checks:
        try:
            values.append(check())
        except KdEdgeError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        found, expected, fixes = zip(
            *((e.found.rstrip("."), e.expected.rstrip("."), e.fix) for e in wrong), strict=True
        )
        raise ConfigError("; ".join(found), "; ".join(expected), "; ".join(dict.fromkeys(fixes)))
    return values


def print_json(values: Any) -> None:
    """Write figures as indented JSON to standard output."""
    plain = to_jsonable_python(values, fallback=_of_numpy)
    print_text(json.dumps(plain, indent=2) + "\n")


def _of_numpy(values: Any) -> Any:
    """The arrays and scalars that pydantic does not know."""
    return values.tolist()


NAMED = 5
"""So many faulty samples are named; the rest is a count."""


def faults(skipped: Mapping[str, str], what: str, of: str = "samples") -> str:
    """Named faulty samples as extra lines; an empty string when there is none."""
    if not skipped:
        return ""
    named = [f"\n  {escape(printable(name))}: {escape(printable(why))}" for name, why in list(skipped.items())[:NAMED]]
    more = f"\n  and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"\n[yellow]{len(skipped)} {of} {what}:[/yellow]{''.join(named)}{more}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; every column but the first is right-aligned."""
    built = Table(box=None, pad_edge=False)
    for position, name in enumerate(header):
        built.add_column(name, justify="left" if position == 0 else "right")
    for row in rows:
        built.add_row(*row)
    return built


def counted(number: int, what: str) -> str:
    """A number of things, one of them in the singular."""
    many = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else many}"


def percent(figure: float | None) -> str:
    """A figure of a stage that may be untested, or of a release that did not have it."""
    return "" if figure is None else f"{figure:.1%}"
