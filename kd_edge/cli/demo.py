"""The verb demo: train, export and run on generated data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType

from kd_edge.cli import export, run
from kd_edge.cli.console import err, out, percent, table
from kd_edge.cli.progress import TrainingDisplay

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.rundir import Summary

app = typer.Typer()


def demo_table(distilled: Summary, alone: Summary) -> RenderableType:
    """Test scores of the teacher, the student trained alone and the distilled student, side by side."""
    rows = []
    for name, of, summary in (
        ("teacher", "teacher", distilled),
        ("student alone", "student", alone),
        ("distilled student", "student", distilled),
    ):
        stage = summary.stages[of]
        figures = (percent(getattr(stage.test, figure, None)) for figure in ("accuracy", "macro_f1", "map"))
        rows.append((name, stage.modality, *figures, f"{stage.all_seconds / 60:.1f}"))
    title = f"{distilled.protocol.test_samples} test clips of other people, seed {distilled.seed}"
    return Group(title, table(("", "sees", "accuracy", "macro F1", "mAP", "minutes"), rows))


def demo_places(folder: Path, model: Path) -> str:
    """Where the demo wrote its files, and the commands to try next."""
    return (
        f"run        {folder}  (recipe.toml, summary.json, metrics.jsonl, plots/)\n"
        f"artifact   {model}\n"
        f"next       kd-edge evaluate {model} --streaming\n"
        f"           kd-edge run --camera synthetic: --model {model}"
    )


@app.command(epilog="Example:  kd-edge demo --out /tmp/demo")
def demo(
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run directory; default runs/demo-<time>.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="How long the student labels the synthetic camera.")
    ] = 20.0,
) -> None:
    """Train with and without a teacher on generated data, export the student and run it; minutes on two cores."""
    from kd_edge.demo import Watched, demo_export, demo_stream, demo_train
    from kd_edge.machine import has_bfloat16
    from kd_edge.rundir import new_run_path
    from kd_edge.runtime.sinks.terminal import describe
    from kd_edge.train.events import Finished

    place = folder or new_run_path(Path("runs"), "demo")
    out.rule("1  train a teacher on RGB, a student on near infrared that learns from it, and the same student alone")
    if not has_bfloat16():
        err.print("this processor has no bfloat16: training in float32")
    with TrainingDisplay(err) as display:
        finished = []
        with closing(demo_train(place, display.decoding)) as events:
            for event in display.watch(events):
                if isinstance(event, Finished):
                    finished.append(event.summary)
                    display.restart()
    out.print(demo_table(*finished))
    out.rule("2  export the student that learnt from the teacher")
    with err.status("exporting"):
        exported = demo_export(place)
    out.print(export.export_summary(exported))
    out.rule("3  live labels from the synthetic infrared camera")
    for seen in demo_stream(exported.artifact.path, seconds):
        if isinstance(seen, Watched):
            out.print(f"{run.tally_report(seen.tally)} in {seen.seconds:.0f} s")
        else:
            out.print(describe(seen), markup=False)
    out.rule("where everything landed")
    out.print(demo_places(place, exported.artifact.path))
