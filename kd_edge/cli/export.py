"""The verb export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, err, out, print_json
from kd_edge.errors import ConfigError

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.export.exporter import Exported

app = typer.Typer()


def export_summary(exported: Exported) -> RenderableType:
    """What was written, and how closely it reproduces the student."""
    report = exported.report
    lines = [
        f"[b]{report.file}[/b]  {report.file_bytes / 1e6:.1f} MB, {report.precision}, opset {report.opset}, "
        f"{report.parameters / 1e6:.2f} M parameters, {report.step_flops / 1e9:.2f} GFLOP a frame"
    ]
    if report.parity is not None:
        p = report.parity
        lines.append(
            f"against the trained model on {p.clips} clips: largest logit error {p.max_abs_error:.1e} "
            f"(bound {p.tolerance:.0e}), same label on {p.argmax_agreement:.1%}"
        )
    if report.health is not None:
        h = report.health
        lines.append(
            f"healthy pictures, by {h.clips} clips: mean at least {h.mean:g}, contrast {h.contrast:g}; "
            f"familiar windows: fitted on {report.familiar_fitted_on}"
        )
    return "\n".join(lines)


@app.command(
    "export",
    epilog="Examples:  kd-edge export --fp16  |  kd-edge export runs/quickstart-20260101-120000 --out robot.onnx  |  "
    "kd-edge export --profile my_profile.toml",
)
def export_(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Run directory; default the newest finished one.")
    ] = "latest",
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half-precision arithmetic, float32 inputs and outputs.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Export profile: export/profiles/NAME.toml, or a path."),
    ] = None,
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="The artifact to write.")] = Path(
        "student.onnx"
    ),
    graph: Annotated[str, typer.Option("--graph", help="'step' for the runtime, or the plain 'clip' model.")] = "step",
    data: DataOption = None,
    json_: JsonOption = False,
) -> None:
    """Export a student to one self-describing ONNX file, compared with the trained model on real clips."""
    from kd_edge.export.profile import ExportProfile

    if fp16 and profile is not None:
        raise ConfigError("--fp16 and --profile together", "one of them", "set precision in the profile")
    name = profile or ("fp16" if fp16 else "fp32")
    settings = recipes.load("export", name, ExportProfile, [] if graph == "step" else [f"graph={graph}"])
    from kd_edge.export.exporter import export
    from kd_edge.train.results.run import Run

    folder = Run.latest().path if run == "latest" else Path(run)
    if run == "latest":
        err.print(f"run {folder}")
    with err.status("exporting"):
        exported = export(folder, settings, target, data_root=data)
    if json_:
        print_json(exported.report)
        return
    out.print(export_summary(exported))
    band = exported.artifact.manifest.band
    camera = "synthetic:" if band in ("nir", "rgb") else "replay:RECORDING"  # the generated figure has no other band
    out.print(f"run it: [b]kd-edge run --camera {camera} --model {target}[/b]")
