"""The verb adapt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import TaskID

from kd_edge.cli.console import JsonOption, err, out, print_json, table
from kd_edge.cli.progress import progress_bar
from kd_edge.errors import ConfigError, printable

if TYPE_CHECKING:
    from kd_edge.adapt import Adapted
    from kd_edge.artifact import AddedClass

_FEW = 0.8
"""Shares below it are pointed out."""

app = typer.Typer()


@app.command(
    epilog="Examples:  kd-edge adapt student.onnx --add wave=clips  |  "
    "kd-edge adapt student.onnx --add wave=clips/wave --add 'thumb up=clips/thumb_up' --keep gestures  |  "
    "kd-edge adapt student.onnx --add wave=clips --key robot.key"
)
def adapt(
    model: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A streaming step, of any precision.")],
    add: Annotated[
        list[str], typer.Option("--add", metavar="LABEL=DIR", help="New class and a folder of its clips; repeatable.")
    ],
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Clips of the classes it knows, in folders of classes: proves it."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The artifact to write; default NAME-adapted.onnx here."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Sign it with this private key.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it though more than one in a hundred kept clips become wrong.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Add classes to an artifact from clips of theirs, on the robot: without torch, in seconds.

    The network stays as it is, and so does what it says of the classes it knows. A row for each new class, on the
    features that the network has learned, is fitted to the clips and judged by clips it was fitted without.
    """
    from kd_edge.adapt import adapt as adapt_artifact

    classes = [_class(text) for text in add]
    file = target if target is not None else Path(f"{model.stem}-adapted.onnx")
    with progress_bar(err) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(escape(printable(what)), total=total)
            bar.update(tasks[what], completed=done)

        result = adapt_artifact(
            model, classes, file, keep=keep, key=key, force=force, threads=threads, progress=progress
        )
    if json_:
        print_json(result)
    else:
        out.print(summary(result))


def _class(text: str) -> tuple[str, Path]:
    """Label and folder of ``LABEL=DIR``."""
    label, equals, folder = text.partition("=")
    if not equals or not folder:
        raise ConfigError(
            f"--add '{printable(text[:60])}'", "LABEL=DIR, a class and the folder of its clips", "--add wave=clips"
        )
    return label, Path(folder)


def _left_out(one: AddedClass) -> str:
    """How many recordings of a class taught nothing, and why."""
    counts = ((one.shorter, "too short"), (one.empty, "with nothing to see"))
    told = ", ".join(f"{count} {why}" for count, why in counts if count)
    return f" ({told})" if told else ""


def _doubts(result: Adapted) -> list[str]:
    """Why a robot will say less than the table promises."""
    told = []
    for one in result.added:
        name = escape(printable(one.label))
        if one.familiar is not None and one.familiar < _FEW:
            told.append(
                f"{1 - one.familiar:.0%} of the windows of '{name}' will be called unknown (unfamiliar): record more "
                "people and clips"
            )
        if one.healthy < _FEW:
            told.append(
                f"{1 - one.healthy:.0%} of the windows of '{name}' will be called degraded, as their pictures are "
                "unlike the training's (kd-edge run --camera replay:FILE says how)"
            )
    if result.kept_familiar is not None and result.kept_familiar < _FEW:
        told.append(
            f"{1 - result.kept_familiar:.0%} of the windows of the kept clips are unfamiliar: this camera or place is "
            "unlike the training, and a robot will call most of them unknown"
        )
    return [f"[yellow]{line}[/yellow]" for line in told]


def summary(result: Adapted) -> RenderableType:
    """What was added, and how good it is."""
    rows = [
        (
            escape(printable(one.label)),
            f"{one.clips}{_left_out(one)}",
            str(one.windows),
            f"{one.accuracy:.1%}",
            f"{escape(printable(one.nearest))}, {one.separation:.1f}",
            "" if one.familiar is None else f"{one.familiar:.1%}",
        )
        for one in result.added
    ]
    columns = ("class", "clips", "windows", "right, held out", "nearest, deviations to the limit", "familiar")
    last = result.added[-1]
    lines = [f"[b]{escape(printable(str(result.file)))}[/b]  {len(result.labels)} classes, in {result.seconds:.1f} s"]
    if last.kept_accuracy is not None:
        before = result.added[0].kept_accuracy or last.kept_accuracy
        shares = f"{before[0]:.1%} right before, {last.kept_accuracy[1]:.1%} after"
        left = f" ({result.kept_left_out} more are too short or show nothing)" if result.kept_left_out else ""
        lines.append(f"{last.kept_clips} kept clips{left}: {shares}")
    else:
        names = " and ".join(f"'{escape(printable(one.label))}'" for one in result.added)
        lines.append(
            f"[yellow]not proved on clips of the classes it knew, recorded here: {names} may mean this place or these "
            "people, whatever they do (--keep DIR tells)[/yellow]"
        )
    lines += _doubts(result)
    before_threshold, after_threshold = result.unknown_threshold
    if before_threshold != after_threshold:
        lines.append(f"unknown below {after_threshold:.0%}, before {before_threshold:.0%}")
    if result.left_out:
        left = ", ".join(sorted({name.partition(".")[0] for name in result.left_out}))
        lines.append(f"[yellow]left out, as it does not know the new class: the model for {left}[/yellow]")
    if result.is_signed:
        lines.append("signed")
    elif result.was_signed:
        lines.append("[yellow]not signed, as it was before: --key KEY, or kd-edge sign[/yellow]")
    return Group(table(columns, rows), *lines)
