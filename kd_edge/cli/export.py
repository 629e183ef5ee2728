"""The verb export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, allow_only, err, out, print_json, table
from kd_edge.errors import ConfigError, did_you_mean, printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.artifact import Manifest, Parity
    from kd_edge.bench.matrix import Matrix
    from kd_edge.engines.tensorrt.library import Kind
    from kd_edge.engines.tensorrt.plans import Plan
    from kd_edge.export.exporter import Exported

app = typer.Typer()
DEFAULT_TARGET = Path("student.onnx")


def export_summary(exported: Exported) -> RenderableType:
    """The written artifact, how closely it reproduces the student, and how to run it."""
    report = exported.report
    parts: list[RenderableType] = [
        f"[b]{escape(printable(str(report.file)))}[/b]  {report.file_bytes / 1e6:.1f} MB, {report.precision}, opset "
        f"{report.opset}, {report.parameters / 1e6:.2f} M parameters, {report.step_flops / 1e9:.2f} GFLOP a frame, "
        f"exported in {report.seconds:.0f} s"
    ]
    if report.parity is not None:
        parts += _parity(report.parity)
    if report.kept_float32:
        parts.append(f"{len(report.kept_float32)} nodes stay in float32; the manifest names them")
    parts.append(calibration(exported.artifact.manifest))
    if report.health is not None:
        h = report.health
        parts.append(
            f"healthy pictures, by {h.clips} clips: mean at least {h.mean:g}, contrast {h.contrast:g}; "
            f"familiar windows: fitted on {escape(report.familiar_fitted_on)}"
        )
    band = exported.artifact.manifest.band
    camera = "synthetic:" if band in ("nir", "rgb") else "replay:RECORDING"  # the generated figure has no other band
    parts.append(f"run it: [b]kd-edge run --camera {camera} --model {escape(printable(str(report.file)))}[/b]")
    return Group(*parts)


def _parity(parity: Parity) -> Iterator[RenderableType]:
    """The stages of an export as a table, and the agreement of the shipped graph on a stream."""
    yield f"{parity.clips} {escape(parity.side)}; largest error tolerated {parity.tolerance:.1e}"
    cells = [
        (
            escape(s.stage),
            escape(s.engine),
            f"{s.max_abs_error:.1e}",
            f"{s.relative_error:.1e}",
            str(s.flips),
            f"{s.accuracy:.1%}",
            f"{s.macro_f1:.3f}",
            f"{s.ece:.3f}",
        )
        for s in parity.stages
    ]
    columns = ("stage", "engine", "largest error", "relative", "flips", "accuracy", "macro F1", "calibration error")
    yield table(columns, cells)
    if (stream := parity.stream) is not None:
        (low, high), (least, most) = stream.agreement_interval, stream.accuracy_change_interval
        change = "none became right or wrong"
        if least < most:
            change = f"change {stream.accuracy_change:+.2%} ({least:+.2%} to {most:+.2%})"
        yield (
            f"as a stream, {stream.frames} frames of {stream.clips} clips: the float32 graph's class in "
            f"{stream.agreement:.2%} ({low:.2%} to {high:.2%})\n"
            f"  right in {stream.accuracy:.1%} of these frames, {change}; "
            "lower than the clips' accuracy because windows reach back into the clip before"
        )


def calibration(manifest: Manifest) -> str:
    """How the confidences are calibrated."""
    from kd_edge.artifact import UNCALIBRATED

    if not manifest.calibrated_on:
        return f"[yellow]{UNCALIBRATED}[/yellow]"
    return (
        f"calibrated on {escape(manifest.calibrated_on)}: temperature {manifest.temperature:.2f}, unknown below "
        f"{manifest.unknown_threshold:.0%}"
    )


@app.command(
    "export",
    epilog="Examples:  kd-edge export --fp16  |  kd-edge export runs/quickstart-20260101-120000 --out robot.onnx  |  "
    "kd-edge export --int8 --report report  |  kd-edge export --with ncnn  |  kd-edge export --matrix  |  "
    "kd-edge export student.onnx --tensorrt",
)
def export_(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Run directory, or an artifact; default the newest finished run.")
    ] = "latest",
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half-precision arithmetic, float32 inputs and outputs.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Integer arithmetic for CPUs, calibrated on training recordings.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Export profile: export/profiles/NAME.toml, or a path."),
    ] = None,
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="Artifact to write.")] = DEFAULT_TARGET,
    graph: Annotated[
        str, typer.Option("--graph", help="'step' for the runtime, or 'clip' for the plain clip model.")
    ] = "step",
    auto_precision: Annotated[
        bool,
        typer.Option("--auto-precision", help="Keep nodes in float32 where a lower precision exceeds the tolerance."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Write a report on the export here, as Markdown and HTML."),
    ] = None,
    carried: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="ENGINE", help="Also convert for this engine and embed the result: ncnn. Repeatable."
        ),
    ] = None,
    matrix: Annotated[
        bool,
        typer.Option(
            "--matrix", help="Compare every precision on every engine here in a table; save it with --report."
        ),
    ] = False,
    sign_key: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign the artifact with this private key.")
    ] = None,
    tensorrt: Annotated[
        bool,
        typer.Option("--tensorrt", help="Also build the plan for this machine's GPU; with an artifact, only that."),
    ] = False,
    tensorrt_rtx: Annotated[
        bool, typer.Option("--tensorrt-rtx", help="The same with TensorRT-RTX, for desktops with an RTX GPU.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key of the profile, or of the plan's settings. Repeatable."
        ),
    ] = None,
    data: DataOption = None,
    json_: JsonOption = False,
) -> None:
    """Export a student to one self-describing ONNX file, compared with the trained model on real clips.

    With --tensorrt and an artifact (default: the newest here), nothing is
    exported: its plan for this machine is built and cached for kd-edge run.
    This does not need torch.
    """
    from kd_edge.artifact import default_model

    plan: Kind | None = "tensorrt" if tensorrt else "tensorrt-rtx" if tensorrt_rtx else None
    if tensorrt and tensorrt_rtx:
        raise ConfigError("--tensorrt and --tensorrt-rtx together", "one of them", "build one after the other")
    if plan is not None and (run == "latest" or not Path(run).is_dir()):
        allow_only(context, f"--{plan}", "--set", fix=f"export first, then kd-edge export ARTIFACT --{plan}")
        path = default_model() if run == "latest" else Path(run)
        err.print(f"model {escape(printable(str(path)))}")
        built = _plan(path, plan, settings or ())
        if json_:
            print_json(plan_facts(built))
        else:
            out.print(plan_summary(built, path))
        return
    if plan is not None:
        from kd_edge.engines.tensorrt.building import gpu_for

        gpu_for(plan, target)  # before minutes of exporting
    from kd_edge.export.profile import ExportProfile

    if matrix:
        allow_only(context, "--matrix", "--profile", "--data", "--report")
    asked = [name for name, wanted in (("--fp16", fp16), ("--int8", int8), ("--profile", profile)) if wanted]
    if len(asked) > 1:
        raise ConfigError(" and ".join(asked) + " together", "one of them", "set precision in the profile")
    check_one_of("--graph", graph, ("step", "clip"))
    for engine in carried or ():
        check_one_of("--with", engine, ("ncnn",))
    name = profile or ("fp16" if fp16 else "int8" if int8 else "fp32")
    changes = [*(settings or ()), *([] if graph == "step" else [f"graph={graph}"])]
    if carried:
        changes.append(f"carry={json.dumps(carried)}")
    chosen = recipes.load("export", name, ExportProfile, changes)
    from kd_edge.artifact import SigningKey, sign
    from kd_edge.export.exporter import export
    from kd_edge.train.results.run import Run

    folder = Run.latest().path if run == "latest" else Path(run)
    if run == "latest":
        err.print(f"run {escape(printable(str(folder)))}")
    if matrix:
        _matrix(folder, [profile] if profile else None, data, report, json_)
        return
    signing = None if sign_key is None else SigningKey(sign_key)
    with steps() as say:
        exported = export(folder, chosen, target, data_root=data, auto_precision=auto_precision, report=report, say=say)
    if signing is not None:
        sign(target, signing)
    planned = None if plan is None else _plan(target, plan, ())
    if json_:
        print_json(exported.report if planned is None else {"export": exported.report, **plan_facts(planned)})
        return
    out.print(export_summary(exported))
    if planned is not None:
        out.print(plan_summary(planned, target))


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Report steps of work: in place on a terminal, one line each elsewhere."""
    if not err.is_terminal:
        yield lambda step: err.print(escape(step))
        return
    with err.status("exporting") as status:
        yield lambda step: status.update(escape(step))


def _plan(path: Path, kind: Kind, changes: Sequence[str]) -> Plan:
    """Build the plan of an artifact for this machine's GPU."""
    from kd_edge.artifact import load
    from kd_edge.engines.tensorrt.building import build_plan, build_settings

    settings = build_settings(changes)
    artifact = load(path)
    with steps() as say:
        return build_plan(artifact, kind, settings, say)


def plan_facts(plan: Plan) -> dict[str, object]:
    """Facts about a plan, as JSON values."""
    return {"plan": plan.path, "was_built": plan.was_built, "settings": plan.settings, "figures": plan.figures}


def plan_summary(plan: Plan, model: Path) -> str:
    """The built plan, and the precisions it computes in."""
    figures = plan.figures
    return (
        f"[b]{escape(printable(str(plan.path)))}[/b]  {figures.plan_bytes / 1e6:.1f} MB, "
        f"{'built' if plan.was_built else 'was built before,'} in {figures.seconds:.1f} s\n"
        f"precision: {figures.shares}\nlabel with it: kd-edge run --model {escape(printable(str(model)))} --camera ir0"
    )


def check_one_of(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        ConfigError: The value is not one of the choices.
    """
    if value not in choices:
        raise ConfigError(
            f"{option} '{value}'{did_you_mean(value, choices)}", f"one of {', '.join(choices)}", f"correct {option}"
        )


def _matrix(run: Path, profiles: Sequence[str] | None, data: Path | None, report: Path | None, json_: bool) -> None:
    """Measure every precision on every engine; print the table, and write it with ``report``."""
    from kd_edge.bench.matrix import PROFILES, measured, write_matrix
    from kd_edge.export.page import check_report_folder

    if report is not None:
        check_report_folder(report)
    with steps() as say:
        found = measured(run, data_root=data, profiles=profiles or PROFILES, say=say)
    if report is not None:
        write_matrix(found, report)
    if json_:
        print_json(found)
    else:
        out.print(matrix_table(found))


def matrix_table(found: Matrix) -> RenderableType:
    """Scores of every precision on every engine."""
    from kd_edge.bench.matrix import COLUMNS, cells, conclusion

    return Group(
        f"{found.clips} {escape(found.side)}, of which the trained model has {found.accuracy:.1%}; "
        f"{escape(printable(found.cpu))}, {found.threads} thread(s), engines in turn",
        table(COLUMNS, [[escape(text) for text in row] for row in cells(found)]),
        escape(conclusion(found)),
    )
