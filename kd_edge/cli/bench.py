"""The verb bench: a model's latency, a recipe's training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json, table
from kd_edge.cli.progress import TrainingDisplay
from kd_edge.errors import ConfigError

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.bench import BenchReport
    from kd_edge.train.throughput import Throughput

app = typer.Typer()


def throughput_report(recipe: str, figures: Throughput) -> str:
    """Loader against step, and what the losses add."""
    cost = figures.cost
    lines = [
        f"{recipe}: loader alone {figures.loader:.0f} clips/s, training step {figures.step:.1f} clips/s, "
        f"ratio {figures.ratio:.1f} ({figures.threads} thread(s), warm cache)"
    ]
    if cost.teacher:
        lines.append(
            f"step by part, medians of {cost.rounds} rounds in turn: teacher forward {cost.teacher:.3f} s, "
            f"student forward and backward {cost.student:.3f} s, both with all losses {cost.distilled:.3f} s: "
            f"{cost.ratio:.3f} x the sum"
        )
    if figures.losses:
        shares = ", ".join(f"{name} {ratio:.3f} x" for name, ratio in figures.losses.items())
        lines.append(f"the step relative to the step without one loss: {shares}")
    if figures.points:
        lines.append(f"virtual images of 64 x 3 x {figures.points} signals: {figures.images_ms:.1f} ms")
    return "\n".join(lines)


def bench_report(report: BenchReport) -> RenderableType:
    """Latency by stage, ratios, start-up and memory."""
    rows = list(report.stages.items())
    rows += [
        ("push", report.push),
        ("push inside the engine", report.inference),
        ("push with the engine left out", report.host),
        ("push outside the engine, between runs", report.host_between_runs),
    ]
    rows += [(f"one bare {report.bare_is} pass", report.bare), ("re-encoding the whole window", report.naive)]
    cells = [(name, *(f"{v:.3f}" for v in (r.p50, r.p90, r.p99, r.minimum))) for name, r in rows]
    lines: list[RenderableType] = [
        f"{escape(report.model)}, {report.precision}, {report.file_bytes / 1e6:.1f} MB; {report.frame} frames, "
        f"{report.pushes} pushes, {report.engine} on {report.cpu}, {report.threads} thread(s)",
        table(("milliseconds", "median", "90 %", "99 %", "least"), cells),
        f"push = {report.push_to_bare.median:.3f} x one bare {report.bare_is} pass (median of pairs; "
        f"fastest {report.push_to_bare.minimum:.3f})",
        f"re-encoding the window = {report.naive_to_push.median:.2f} x a push "
        f"(fastest {report.naive_to_push.minimum:.2f})",
        f"fresh process: ready in {report.process.ready_seconds:.2f} s, peak {report.process.peak_rss_mb:.0f} MB, "
        f"torch {'imported' if report.process.imports_torch else 'not imported'}",
    ]
    if report.fallback_reason:
        lines.append(f"[yellow]fallback:[/yellow] {escape(report.fallback_reason)}")
    return Group(*lines)


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
        out.print(bench_report(report))


def _bench_training(recipe: str, settings: Sequence[str], data: Path | None, json_: bool) -> None:
    from kd_edge.train.recipe import Recipe

    config = recipes.load("train", recipe, Recipe, settings)
    from kd_edge.train.throughput import measure

    with TrainingDisplay(err) as display:
        figures = measure(config, data, progress=display.decoding)
    if json_:
        print_json(figures)
    else:
        out.print(throughput_report(recipe, figures))
