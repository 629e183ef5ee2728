"""Shared by all verbs: consoles, common options, JSON output."""

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
"""Columns without a terminal: a log must not be wrapped at 80."""


class _Standard:
    """The current standard output or error, whose write errors are reported in one line or ignored.

    Args:
        name: ``stdout`` or ``stderr``.
        may_be_lost: Whether to ignore write errors.
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
                raise  # Rich and Typer exit silently, with exit code 1
        except OSError as error:
            if not self._may_be_lost:
                raise ConfigError(
                    f"standard output cannot be written ({error.strerror})", "a writable output", "free space"
                ) from error


def _console(name: str, *, may_be_lost: bool) -> Console:
    stream = getattr(sys, name)  # None where a supervisor has closed it
    width = None if stream is not None and stream.isatty() else WIDE
    return Console(file=cast(TextIO, _Standard(name, may_be_lost=may_be_lost)), highlight=False, width=width)


out = _console("stdout", may_be_lost=False)
err = _console("stderr", may_be_lost=True)


class _LogLines(logging.Handler):
    """Log handler that prints escaped single lines on standard error, tracebacks included."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = [record.getMessage()]
        if record.exc_info:
            lines += "".join(traceback.format_exception(*record.exc_info)).splitlines()
        for line in lines:
            err.print(escape(printable(line)), soft_wrap=True)


def show_log() -> None:
    """Print kd-edge's warnings, and silence Matplotlib's about its folders, which it does not need."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    log = logging.getLogger("kd_edge")
    if not any(isinstance(handler, _LogLines) for handler in log.handlers):
        log.addHandler(_LogLines(logging.WARNING))


def open_closed_streams() -> None:
    """Replace standard streams that a supervisor has closed with the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Occupies the closed stream's number: otherwise the next opened file would get it, and with it whatever
            # libraries print.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def flush_streams() -> bool:
    """Flush standard output and error; returns whether all of standard output could be written."""
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            written = written and stream is not sys.stdout
            # Python flushes again at exit, and would report the error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return written


def print_text(text: str) -> None:
    """Write text to standard output without markup or wrapping."""
    out.file.write(text)
    out.file.flush()


DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the recordings; default KD_EDGE_DATA."),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="onnxruntime, openvino, ncnn, cuda, tensorrt, tensorrt-rtx; or auto: the best one available.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe key by its dotted path, for example student.epochs=20 or stages.head.epochs=20; null "
        "removes an optional one. Repeatable.",
    ),
]


def typed(context: typer.Context) -> list[str]:
    """Long names of the options given on the command line, in help order, without ``--json``."""
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
    """Refuse options that have no effect in the selected mode.

    Args:
        context: The command's context.
        mode: The option that selects the mode, for example ``--recording``.
        allowed: Options that can be combined with the mode; ``--json`` always can.
        fix: How to fix the command.

    Raises:
        ConfigError: Other options were given; the message names all of them.
    """
    wrong = [option for option in typed(context) if option not in (mode, *allowed)]
    if wrong:
        expected = f"{mode} with {', '.join(allowed)} only" if allowed else f"{mode} alone"
        raise ConfigError(f"{mode} with {', '.join(wrong)}", expected, fix)


def checked(*checks: Callable[[], Any]) -> list[Any]:
    """Run several checks of options and return their results; all failures are reported in one line.

    Raises:
        KdEdgeError: One check failed (its own error), or several did (one error for all).
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
    """Convert NumPy arrays and scalars, which pydantic does not serialise."""
    return values.tolist()


NAMED = 5
"""Number of faulty samples that are named; the rest are counted."""


def faults(skipped: Mapping[str, str], what: str, of: str = "samples") -> str:
    """List faulty samples in extra lines; an empty string if there are none."""
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
    """Format a count with its noun, singular or plural."""
    many = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else many}"


def percent(figure: float | None) -> str:
    """Format a score in percent; empty for an untested stage or a release that did not record it."""
    return "" if figure is None else f"{figure:.1%}"
