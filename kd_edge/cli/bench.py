"""The verb bench: a model's latency, a recipe's training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge import recipes
from kd_edge.cli.console import (
    DataOption,
    EngineOption,
    JsonOption,
    SetOption,
    allow_only,
    err,
    out,
    print_json,
    table,
)
from kd_edge.cli.progress import TrainingDisplay, progress_bar
from kd_edge.errors import ConfigError, printable
from kd_edge.runtime.uri import shown

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.bench import BenchReport, LiveReport, OverloadReport, SoakReport
    from kd_edge.engines import EngineName
    from kd_edge.train.throughput import Throughput

app = typer.Typer()


_ENGINE = ("--engine", "--threads")
_USED = {
    "--training": ("--set", "--data"),
    "--camera": ("--seconds", *_ENGINE),
    "--overload": ("--size", *_ENGINE),
    "--soak": ("--size", *_ENGINE),
}
"""Options that each measurement uses; for a model by itself see ``_check_used``."""
BEYOND_WINDOW_SECONDS = 2.0
"""Minimum time a camera is watched beyond the model's window: there is no label before the window is full."""


def _shown(text: str) -> str:
    """Escape a name or a machine's text for printing."""
    return escape(printable(text))


def throughput_report(recipe: str, figures: Throughput) -> str:
    """Loader and training-step throughput, and the cost of each loss."""
    cost = figures.cost
    lines = [
        f"{_shown(recipe)}: loader alone {figures.loader:.0f} clips/s, training step {figures.step:.1f} clips/s, "
        f"ratio {figures.ratio:.1f} ({figures.threads} thread(s), warm cache)"
    ]
    if cost.teacher:
        lines.append(
            f"step by part, medians of {cost.rounds} rounds in turn: teacher forward {cost.teacher:.3f} s, "
            f"student forward and backward {cost.student:.3f} s, both with all losses {cost.distilled:.3f} s: "
            f"{cost.ratio:.3f} x the sum"
        )
    if figures.losses:
        shares = ", ".join(f"{_shown(name)} {ratio:.3f} x" for name, ratio in figures.losses.items())
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
    for dtype, work in report.host_work.items():
        rows += [(f"host work, {dtype}", work.cold), (f"host work, {dtype} just written", work.delivered)]
    rows += [(f"one bare {report.bare_is} pass", report.bare), ("re-encoding the whole window", report.naive)]
    cells = [(name, *(f"{v:.3f}" for v in (r.p50, r.p90, r.p99, r.minimum))) for name, r in rows]
    lines: list[RenderableType] = [
        f"{_shown(report.model)}, {_shown(report.precision)}, {report.file_bytes / 1e6:.1f} MB; {report.frame} frames, "
        f"{report.pushes} pushes, {_shown(report.engine)} on {_shown(report.cpu)}, {report.threads} thread(s)",
        table(("milliseconds", "median", "90 %", "99 %", "least"), cells),
        *_against_target(report),
        f"push = {report.push_to_bare.median:.3f} x one bare {report.bare_is} pass (median of pairs; "
        f"fastest {report.push_to_bare.minimum:.3f})",
        f"re-encoding the window = {report.naive_to_push.median:.2f} x a push "
        f"(fastest {report.naive_to_push.minimum:.2f})",
        f"fresh process: ready in {report.process.ready_seconds:.2f} s, peak {report.process.peak_rss_mb:.0f} MB, "
        f"torch {'imported' if report.process.imports_torch else 'not imported'}",
    ]
    if report.fallback_reason:
        lines.append(f"[yellow]fallback:[/yellow] {_shown(report.fallback_reason)}")
    return Group(*lines)


def _against_target(report: BenchReport) -> Iterator[str]:
    """Host work by dtype against its target, which is for frames of one size."""
    from kd_edge.bench.report import HOST_FRAME, HOST_MEDIAN_MS, HOST_P99_MS

    if report.frame != HOST_FRAME:
        return
    for dtype, work in report.host_work.items():
        verdict = "[green]met[/green]" if work.meets_target else "[yellow]missed[/yellow]"
        yield (
            f"host work between runs, {dtype}: {work.cold.p50:.3f} ms median (target {HOST_MEDIAN_MS:g}), "
            f"{work.cold.p99:.3f} ms at 99 % (target {HOST_P99_MS:g}): {verdict}"
        )


@app.command(
    epilog="Examples:  kd-edge bench student.onnx  |  kd-edge bench --reference resnet18 --input 224 --json  |  "
    "kd-edge bench --training quickstart  |  kd-edge bench student.onnx --camera ir0  |  kd-edge bench --soak 1000000"
)
def bench(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(metavar="[ARTIFACT]", help="The artifact to measure.")] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="BACKBONE", help="Measure an untrained network instead of an artifact."),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option("--training", metavar="RECIPE", help="Measure a recipe's loader and training step instead."),
    ] = None,
    settings: SetOption = None,
    data: DataOption = None,
    input_px: Annotated[int, typer.Option("--input", metavar="PX", help="Input size of --reference.")] = 224,
    motion: Annotated[bool, typer.Option("--motion", help="Give --reference a motion stack as input.")] = False,
    frames: Annotated[int, typer.Option("--frames", min=10, help="Number of timed pushes.")] = 200,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Size of the camera frames.")] = "640x480",
    engine: EngineOption = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the engine.")] = 1,
    camera: Annotated[
        str | None,
        typer.Option("--camera", metavar="NAME|URI", help="Check whether this machine keeps up with a camera."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=1, help="How long to watch the camera; at least the model's window plus 2 s."),
    ] = 10.0,
    overloaded: Annotated[
        bool, typer.Option("--overload", help="Measure the age of labels at three times the sustainable frame rate.")
    ] = False,
    soaked: Annotated[
        int | None,
        typer.Option(
            "--soak",
            metavar="FRAMES",
            min=1000,
            help="Run this many accelerated frames with faults; check memory and threads.",
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Measure a model (latency by stage, ratio to one bare backbone pass, start-up, memory) or a recipe's training.

    --camera, --overload and --soak measure live labelling; their default
    model is the newest artifact here, or the bundled one.
    """
    import tempfile

    from kd_edge.artifact import default_model
    from kd_edge.bench import bench as measure

    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size {size}", "WIDTHxHEIGHT, for example 640x480", "correct it")
    live = [name for name, asked in (("--camera", camera), ("--overload", overloaded), ("--soak", soaked)) if asked]
    if len(live) > 1:
        raise ConfigError(" and ".join(live), "one of them at a time", "run one after the other")
    if live and reference is None and training is None:
        model = model or default_model()
    if sum(wanted is not None for wanted in (model, reference, training)) != 1:
        raise ConfigError(
            "not one of ARTIFACT, --reference and --training", "one of them", "kd-edge bench student.onnx"
        )
    _check_used(context, "--training" if training is not None else "".join(live), reference)
    if training is not None:
        _bench_training(training, settings or (), data, json_)
        return
    from kd_edge.engines import engine_name

    chosen = engine_name(engine)
    with tempfile.TemporaryDirectory() as folder:
        if reference is not None:
            from kd_edge.export.reference import make_reference_artifact

            model = Path(folder) / "reference.onnx"
            with err.status("exporting the reference"):
                make_reference_artifact(reference, input_px, model, motion=motion)
        assert model is not None
        if live:
            _bench_live(model, camera, seconds, soaked, (int(height), int(width)), chosen, threads, json_)
            return
        with err.status("measuring; keep the machine quiet"):
            report = measure(model, frames=frames, size=(int(height), int(width)), engine=chosen, threads=threads)
    if json_:
        print_json(report)
    else:
        out.print(bench_report(report))


def _check_used(context: typer.Context, mode: str, reference: str | None) -> None:
    """Refuse options that the selected measurement does not use."""
    used = _USED.get(mode, ("--frames", "--size", *_ENGINE))
    if reference is not None:
        used = ("--reference", *used, "--input", "--motion")
    allow_only(context, mode or ("--reference" if reference else "an artifact"), *used)


def _bench_live(
    model: Path,
    camera: str | None,
    seconds: float,
    soaked: int | None,
    size: tuple[int, int],
    engine: EngineName,
    threads: int,
    json_: bool,
) -> None:
    from kd_edge import artifact as artifacts
    from kd_edge import bench as benches

    if camera is not None:
        seconds = max(seconds, artifacts.load(model).manifest.clip_seconds + BEYOND_WINDOW_SECONDS)
        with err.status(f"watching {_shown(shown(camera))} for {seconds:.1f} s"):
            watched = benches.watch(model, camera, seconds=seconds, engine=engine, threads=threads)
        print_json(watched) if json_ else out.print(live_report(watched))
        if watched.faults:
            raise typer.Exit(1)
    elif soaked is not None:
        with progress_bar(err) as bar:
            task = bar.add_task("frames", total=soaked)
            report = benches.soak(
                model,
                soaked,
                size=size,
                engine=engine,
                threads=threads,
                progress=lambda done, total: bar.update(task, completed=done),
            )
        print_json(report) if json_ else out.print(soak_report(report))
    else:
        with progress_bar(err) as bar:
            task = bar.add_task("loading the machine; leave it alone", total=None)
            figures = benches.overload(
                model,
                size=size,
                engine=engine,
                threads=threads,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        print_json(figures) if json_ else out.print(overload_report(figures))


def live_report(report: LiveReport) -> RenderableType:
    """Rate, budget and age of a camera's labels, and the faults found."""
    rows = [(what, row) for what, row in (("push", report.push), ("age of a label", report.age)) if row is not None]
    cells = [(what, *(f"{v:.1f}" for v in (r.p50, r.p90, r.p99, r.minimum))) for what, r in rows]
    states = ", ".join(f"{count} {state}" for state, count in report.labels.items()) or "none"
    least, full = report.needed_fps
    lines: list[RenderableType] = [
        f"{_shown(report.camera)} with {_shown(report.model)}, {report.seconds:.0f} s: {report.camera_fps:.1f} "
        f"frames/s; the window needs {least:.1f}, {full:.1f} for labels that are not degraded",
        table(("milliseconds", "median", "90 %", "99 %", "least"), cells),
        f"a push takes {report.budget:.0%} of the time between two frames; {report.dropped:.0%} of the frames skipped",
        f"labels: {states}",
    ]
    lines += [f"[yellow]{_shown(fault)}[/yellow]" for fault in report.faults] or ["[green]they fit[/green]"]
    return Group(*lines)


def overload_report(report: OverloadReport) -> RenderableType:
    """Age of labels with and without overload."""
    cells = [
        (name, *(f"{v:.2f}" for v in (r.p50, r.p90, r.p99, r.minimum)))
        for name, r in (("at a third of it", report.unloaded), ("at three times it", report.overloaded))
    ]
    return Group(
        f"{_shown(report.model)}: this machine sustains {report.sustainable_fps:.1f} frames/s",
        table(("age of a label, ms", "median", "90 %", "99 %", "least"), cells),
        f"99 % under overload = {report.p99.median:.2f} x unloaded (median of rounds; target 2); "
        f"{report.skipped:.0%} of the frames skipped",
    )


def soak_report(report: SoakReport) -> str:
    """Memory, descriptors and threads after a long stream."""
    states = ", ".join(f"{count:,} {state}" for state, count in report.labels.items())
    return (
        f"{report.frames:,} frames ({report.hours:.1f} hours at 30 frames/s), {report.faults:,} faults, "
        f"{report.reconnects:,} reconnects; labels: {states}\n"
        f"resident memory {report.rss_mb:.1f} MB, {report.rss_change_mb[0]:+.2f} to {report.rss_change_mb[1]:+.2f} MB "
        f"afterwards (target 5); descriptors {report.descriptors[0]} to {report.descriptors[1]}, "
        f"threads {report.threads[0]} to {report.threads[1]}"
    )


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
