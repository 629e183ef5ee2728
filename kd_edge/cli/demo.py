"""The verb demo: the whole way on generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kd_edge.cli import export, train
from kd_edge.cli.console import err, out
from kd_edge.cli.progress import TrainingDisplay

app = typer.Typer()


def demo_places(folder: Path, model: Path) -> str:
    """Where the demo left everything, and what to type next."""
    return (
        f"run        {folder}  (recipe.toml, summary.json, metrics.jsonl, plots/)\n"
        f"artifact   {model}\n"
        f"next       kd-edge evaluate {model} --streaming\n"
        f"           kd-edge run --camera synthetic: --model {model}"
    )


@app.command(epilog="Example:  kd-edge demo --out /tmp/demo")
def demo(
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default runs/demo-<time>.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long the student watches.")] = 20.0,
) -> None:
    """Go the whole way on generated data: train, export, run; minutes on two cores."""
    from kd_edge.demo import Watched, demo_export, demo_stream, demo_train
    from kd_edge.rundir import new_run_path
    from kd_edge.runtime.sinks.terminal import describe

    place = folder or new_run_path(Path("runs"), "demo")
    out.rule("1  train a teacher on RGB, then a student on near infrared")
    with TrainingDisplay(err) as display:
        summary = display.follow(demo_train(place, display.decoding))
    out.print(train.training_summary(summary))
    out.rule("2  export the student")
    with err.status("exporting"):
        exported = demo_export(place)
    out.print(export.export_summary(exported))
    out.rule("3  live labels from the synthetic infrared camera")
    for event in demo_stream(exported.artifact.path, seconds):
        if isinstance(event, Watched):
            out.print(f"{event.right} of {event.labels} labels right in {event.seconds:.0f} s")
        else:
            out.print(describe(event), markup=False)
    out.rule("where everything landed")
    out.print(demo_places(place, exported.artifact.path))
