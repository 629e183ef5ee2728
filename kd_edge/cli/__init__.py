"""The command line: parse, load, one call each. The only package that prints."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from kd_edge import __version__
from kd_edge.cli import bench, cameras, data, demo, doctor, evaluate, explain, export, recipes, run, study, train
from kd_edge.cli.console import err, out
from kd_edge.errors import EXTRA_OF, KdEdgeError, MissingExtraError

__all__ = ["app", "err", "main", "out"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a small infrared or RGB action recogniser by distillation, export it, run it on a robot.",
)
for verb in (train, evaluate, export, run, bench, cameras, explain, demo, doctor):
    app.add_typer(verb.app)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        app(args=_resume_latest(sys.argv[1:]))
    except KdEdgeError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        missing = f"module '{error.name}' is not installed"
        _fail(MissingExtraError(missing, f"the extra [{extra}]", f"pip install 'kd-edge[{extra}]'"))


def _resume_latest(arguments: list[str]) -> list[str]:
    """``--resume`` without a run means the latest; Typer has no options whose value may be left out."""
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        bare = argument == "--resume" and following.startswith("-")
        completed += [argument, "latest"] if bare else [argument]
    return completed


def _fail(error: KdEdgeError) -> None:
    err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
    sys.exit(2)


def _version(show: bool) -> None:
    if show:
        sys.stdout.write(f"kd-edge {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
