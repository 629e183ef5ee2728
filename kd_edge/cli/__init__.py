"""The command line: each verb parses its options and makes one call. The only package that prints."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from typing import Annotated

try:
    import typer
    from rich.markup import escape

    from kd_edge import __version__
    from kd_edge.cli import (
        adapt,
        bench,
        cameras,
        data,
        data_init,
        demo,
        doctor,
        evaluate,
        explain,
        export,
        install_service,
        label,
        recipes,
        record,
        run,
        sign,
        study,
        study_models,
        study_pictures,
        train,
    )
    from kd_edge.cli.console import err, flush_streams, open_closed_streams, out, print_text, show_log
    from kd_edge.errors import KdEdgeError
    from kd_edge.packages import failed_import
except KeyboardInterrupt:  # before any verb has begun: imports take a second
    sys.exit(130)

__all__ = ["app", "err", "main", "out"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a small infrared or RGB action recogniser by distillation, export it, run it on a robot.",
)
data.app.add_typer(data_init.app)
for more in (study_models, study_pictures):
    study.app.add_typer(more.app)
for verb in (train, evaluate, export, adapt, sign, run, record, label, bench, explain, demo, doctor, install_service):
    app.add_typer(verb.app)
app.add_typer(cameras.app, name="cameras")
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


def main() -> None:
    """Run the command line.

    A user error is reported in one line on standard error, with exit code 2. Output that cannot be written gives exit
    code 1. A closed standard stream is replaced by the null device. If standard output is a pipe whose reader has
    exited, the exit code is 1 and nothing is printed; losing standard error is never an error.
    """
    open_closed_streams()
    show_log()
    try:
        _run(_completed(sys.argv[1:]))
    except SystemExit as end:
        if not flush_streams() and not end.code:
            sys.exit(1)
        raise


def _run(arguments: list[str]) -> None:
    try:
        app(args=arguments)
    except KeyboardInterrupt:  # before Typer takes care of it
        sys.exit(130)
    except KdEdgeError as error:
        _fail(error)
    except Exception as error:
        package = failed_import(error)
        if package is not None:
            _fail(package)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # Typer prints its help itself
            _fail(KdEdgeError("the output cannot be written (no space left)", "a writable output", "free space"))
        raise


def _completed(arguments: list[str]) -> list[str]:
    """Add the default value to ``--resume`` (the latest run) and ``doctor --json`` (standard output) without a value.

    Typer does not support options with an optional value.
    """
    defaults = {"--resume": "latest"} | ({"--json": "-"} if arguments[:1] == ["doctor"] else {})
    completed: list[str] = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue="-"):
        completed.append(argument)
        if argument in defaults and following.startswith("-") and (following != "-" or argument == arguments[-1]):
            completed.append(defaults[argument])
    return completed


def _fail(error: KdEdgeError) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes, only the first reports
        err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
    sys.exit(error.exit_code)


def _version(show: bool) -> None:
    if show:
        print_text(f"kd-edge {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
