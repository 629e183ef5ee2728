"""Verbs about this machine, and the demo: bench, cameras, doctor, demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kd_edge import recipes
from kd_edge.cli import show, show_training
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json
from kd_edge.errors import ConfigError

app = typer.Typer()


@app.command(
    epilog="Examples:  kd-edge bench student.onnx  |  kd-edge bench --reference resnet18 --input 224 --json  |  "
    "kd-edge bench --training quickstart"
)
def bench(
    model: Annotated[Path | None, typer.Argument(metavar="[ARTIFACT]")] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="BACKBONE", help="An untrained network instead of an artifact."),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option("--training", metavar="RECIPE", help="Loader against training step, instead of a model."),
    ] = None,
    settings: SetOption = None,
    data: DataOption = None,
    input_px: Annotated[int, typer.Option("--input", metavar="PX", help="Input side of the reference.")] = 224,
    motion: Annotated[bool, typer.Option("--motion", help="Motion stack for the reference.")] = False,
    frames: Annotated[int, typer.Option("--frames", min=10, help="Timed pushes.")] = 200,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Camera frame.")] = "640x480",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Measure a model: latency by stage, ratio to one bare backbone pass, start-up, memory. Or a recipe's training."""
    import tempfile

    from kd_edge.bench import bench as measure

    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size {size}", "WIDTHxHEIGHT, for example 640x480", "correct it")
    if sum(wanted is not None for wanted in (model, reference, training)) != 1:
        raise ConfigError(
            "not one of ARTIFACT, --reference and --training", "one of them", "kd-edge bench student.onnx"
        )
    if training is not None:
        _bench_training(training, settings or (), data, json_)
        return
    with tempfile.TemporaryDirectory() as folder, err.status("measuring; keep the machine quiet"):
        if reference is not None:
            from kd_edge.export.reference import make_reference_artifact

            model = Path(folder) / "reference.onnx"
            make_reference_artifact(reference, input_px, model, motion=motion)
        assert model is not None
        report = measure(model, frames=frames, size=(int(height), int(width)), threads=threads)
    if json_:
        print_json(report)
    else:
        out.print(show.bench(report))


def _bench_training(recipe: str, settings: Sequence[str], data: Path | None, json_: bool) -> None:
    from kd_edge.train.recipe import Recipe
    from kd_edge.train.throughput import measure

    with show.Training(err) as display:
        figures = measure(recipes.load("train", recipe, Recipe, settings), data, progress=display.decoding)
    if json_:
        print_json(figures)
    else:
        out.print(show_training.throughput(recipe, figures))


@app.command()
def cameras(json_: JsonOption = False) -> None:
    """Show what is attached, what is configured, and the exact line to use it."""
    from kd_edge.runtime.cameras.listing import list_cameras

    found = list_cameras()
    if json_:
        print_json(found)
    else:
        out.print(show.cameras(found))


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Report what is installed, what clashes, which engines and cameras are usable, and what to do.

    Exit code 1 when something is wrong.
    """
    from kd_edge.doctor import examine

    findings = examine()
    if json_:
        print_json(findings)
    else:
        out.print(show.doctor(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example:  kd-edge demo --out /tmp/demo")
def demo(
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default runs/demo-<time>.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long the student watches.")] = 20.0,
) -> None:
    """Go the whole way on generated data: train with and without a teacher, export, run; minutes on two cores."""
    from kd_edge.demo import Watched, demo_export, demo_stream, demo_train
    from kd_edge.runtime.sinks.terminal import describe
    from kd_edge.train.events import Finished
    from kd_edge.train.run import new_run_path

    place = folder or new_run_path(Path("runs"), "demo")
    out.rule("1  train a teacher on RGB, a student on near infrared that learns from it, and the same student alone")
    with show.Training(err) as display:
        finished = []
        for event in display.watch(demo_train(place, display.decoding)):
            if isinstance(event, Finished):
                finished.append(event.summary)
                display.restart()
    out.print(show.demo_table(*finished))
    out.rule("2  export the student that learnt from the teacher")
    with err.status("exporting"):
        exported = demo_export(place)
    out.print(show.export_summary(exported))
    out.rule("3  live labels from the synthetic infrared camera")
    for seen in demo_stream(exported.artifact.path, seconds):
        if isinstance(seen, Watched):
            out.print(f"{show.tally(seen.tally)} in {seen.seconds:.0f} s")
        else:
            out.print(describe(seen), markup=False)
    out.rule("where everything landed")
    out.print(show.demo_places(place, exported.artifact.path))
