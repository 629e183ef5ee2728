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
"""Shares below this are warned about."""

app = typer.Typer()


@app.command(
    epilog="Examples:  kd-edge adapt student.onnx --add wave=clips  |  "
    "kd-edge adapt student.onnx --add wave=clips/wave --add 'thumb up=clips/thumb_up' --keep gestures  |  "
    "kd-edge adapt student.onnx --add wave=clips --key robot.key"
)
def adapt(
    model: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="Artifact with a streaming step, of any precision.")
    ],
    add: Annotated[
        list[str], typer.Option("--add", metavar="LABEL=DIR", help="New class and the folder of its clips. Repeatable.")
    ],
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Clips of the existing classes, one folder each, to check that they still work.",
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Artifact to write; default ./NAME-adapted.onnx."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Private key to sign with.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the artifact even if more than 1 % of the --keep clips become wrong.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Add classes to an artifact from a few clips, on the robot: in seconds, without torch.

    The network and its logits for the existing classes stay unchanged. For
    each new class, one row on top of the learned features is fitted to the
    clips and scored on held-out clips.
    """
    from kd_edge.adapt import adapt as adapt_artifact

    classes = [_class(text) for text in add]
    file = target if target is not None else Path(f"{model.stem}-adapted.onnx")
    with progress_bar(err) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(escape(printable(step)), total=total)
            bar.update(tasks[step], completed=done)

        result = adapt_artifact(
            model, classes, file, keep=keep, key=key, force=force, threads=threads, progress=progress
        )
    if json_:
        print_json(result)
    else:
        out.print(summary(result))


def _class(text: str) -> tuple[str, Path]:
    """Parse ``LABEL=DIR`` into label and folder."""
    label, equals, folder = text.partition("=")
    if not equals or not folder:
        raise ConfigError(
            f"--add '{printable(text[:60])}'", "LABEL=DIR, a class and the folder of its clips", "--add wave=clips"
        )
    return label, Path(folder)


def _left_out(added: AddedClass) -> str:
    """How many recordings of a class were unusable, and why."""
    counts = ((added.shorter, "too short"), (added.empty, "empty"))
    unusable = ", ".join(f"{count} {why}" for count, why in counts if count)
    return f" ({unusable})" if unusable else ""


def _doubts(result: Adapted) -> list[str]:
    """Warnings that a robot will recognise less than the table suggests."""
    warnings = []
    for added in result.added:
        name = escape(printable(added.label))
        if added.familiar is not None and added.familiar < _FEW:
            warnings.append(
                f"{1 - added.familiar:.0%} of the windows of '{name}' will be labelled unknown (unfamiliar): record "
                "more people and clips"
            )
        if added.healthy < _FEW:
            warnings.append(
                f"{1 - added.healthy:.0%} of the windows of '{name}' will be labelled degraded, as their images differ "
                "from the training images (for the reasons: kd-edge run --camera replay:FILE)"
            )
    if result.kept_familiar is not None and result.kept_familiar < _FEW:
        warnings.append(
            f"{1 - result.kept_familiar:.0%} of the windows of the kept clips are unfamiliar: this camera or place "
            "differs from the training data, and a robot will label most of them unknown"
        )
    return [f"[yellow]{line}[/yellow]" for line in warnings]


def summary(result: Adapted) -> RenderableType:
    """The added classes and their scores."""
    rows = [
        (
            escape(printable(added.label)),
            f"{added.clips}{_left_out(added)}",
            str(added.windows),
            f"{added.accuracy:.1%}",
            f"{escape(printable(added.nearest))}, {added.separation:.1f}",
            "" if added.familiar is None else f"{added.familiar:.1%}",
        )
        for added in result.added
    ]
    columns = ("class", "clips", "windows", "right, held out", "nearest, deviations to the limit", "familiar")
    last = result.added[-1]
    lines = [f"[b]{escape(printable(str(result.file)))}[/b]  {len(result.labels)} classes, in {result.seconds:.1f} s"]
    if last.kept_accuracy is not None:
        before = result.added[0].kept_accuracy or last.kept_accuracy
        shares = f"{before[0]:.1%} right before, {last.kept_accuracy[1]:.1%} after"
        left = f" ({result.kept_left_out} more are too short or empty)" if result.kept_left_out else ""
        lines.append(f"{last.kept_clips} kept clips{left}: {shares}")
    else:
        names = " and ".join(f"'{escape(printable(added.label))}'" for added in result.added)
        lines.append(
            f"[yellow]not checked on clips of the existing classes, recorded here: {names} may have learned this place "
            "or these people instead of the action (check with --keep DIR)[/yellow]"
        )
    lines += _doubts(result)
    before_threshold, after_threshold = result.unknown_threshold
    if before_threshold != after_threshold:
        lines.append(f"unknown below {after_threshold:.0%}, before {before_threshold:.0%}")
    if result.left_out:
        left = ", ".join(sorted({name.partition(".")[0] for name in result.left_out}))
        lines.append(f"[yellow]removed, as it lacks the new class: the model for {left}[/yellow]")
    if result.is_signed:
        lines.append("signed")
    elif result.was_signed:
        lines.append("[yellow]no longer signed: use --key KEY, or kd-edge sign[/yellow]")
    return Group(table(columns, rows), *lines)
