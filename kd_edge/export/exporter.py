"""Export a run directory to an artifact: graph, precision, parity on real clips, golden clip, manifest, file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from pydantic import ValidationError

import kd_edge
from kd_edge.artifact import Artifact, GoldenClip, Manifest, StateSpec, load, write
from kd_edge.artifact.manifest import fault
from kd_edge.data import open_dataset
from kd_edge.engines import ENGINES
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import ArtifactError, ExportError, MissingExtraError
from kd_edge.export.golden import golden_clip
from kd_edge.export.health import fit_artifact
from kd_edge.export.layers import layer_errors
from kd_edge.export.onnx import to_onnx
from kd_edge.export.page import check_report_folder, write_report
from kd_edge.export.profile import ExportProfile
from kd_edge.export.recordings import Recordings
from kd_edge.export.report import ExportReport, clips_within, count_flops, count_parameters, opset_of
from kd_edge.export.staged import Say, check_carried, engines_of, export_threads, open_here, stage
from kd_edge.files import check_writable
from kd_edge.models import ClipModel
from kd_edge.models.saved import SavedStudent, StudentSpec
from kd_edge.models.shift import state_shapes
from kd_edge.packages import EXTRA_OF
from kd_edge.rundir import Summary
from kd_edge.types import Float32

HEALTH_FLOPS = 1.5e12
"""Upper limit for the operations on clips for fitting healthy pictures and familiar windows: 15 seconds on one core."""


def _ignore(_: str) -> None:
    """Discard a progress message."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written artifact, verified by reading it again."""

    artifact: Artifact
    report: ExportReport


def export(
    run: Path | str,
    profile: ExportProfile,
    out: Path,
    *,
    data_root: Path | None = None,
    auto_precision: bool = False,
    report: Path | None = None,
    say: Say = _ignore,
) -> Exported:
    """Export the student of a run.

    Every stage is compared with the trained model on held-out clips; if a stage exceeds the profile's bounds, nothing
    is written.

    Args:
        run: A finished run directory.
        profile: Precision, graph and bounds.
        out: The artifact to write; an existing file is replaced only on success.
        data_root: Folder of the run's recordings, if they are neither generated nor set in the recipe or environment.
        auto_precision: Keep the nodes in float32 that would put a lower precision out of bounds.
        report: Folder for a report on the export, in Markdown and HTML.
        say: Called with a message for each step.

    Raises:
        ExportError: The run is not finished, or the graph does not reproduce the student.
        DataError: The recordings for the comparison are missing.
        ArtifactError: ``out`` cannot be written.
        MissingExtraError: An engine or converter required by the profile is not installed.
    """
    started = time.monotonic()
    check_writable(out, ArtifactError)
    check_installed(profile)
    if report is not None:
        check_report_folder(report)
    student = SavedStudent.load(run)
    check_carried(profile, student.spec.segments)
    recordings = Recordings.of(student, open_dataset(student.spec.data, data_root))
    say("exporting the graph")
    exact = build_graph(student.model, student.spec, profile)
    manifest = describe(student.model, student.spec, profile, **_manifest_fields(student, recordings))
    with tempfile.TemporaryDirectory() as folder:
        staged = stage(
            student, recordings, profile, exact, manifest, Path(folder), auto_precision=auto_precision, say=say
        )
        manifest = staged.manifest
        if profile.health and profile.graph == "step":
            say("fitting healthy pictures and familiar windows")
            fitted = fit_artifact(
                staged.artifact,
                recordings.dataset,
                validation=recordings.validation,
                clips=clips_within(HEALTH_FLOPS, student, profile.health_clips),
                threads=export_threads(),
            )
            manifest = manifest.model_copy(update=fitted._asdict())
        golden = _golden(student.model, student.spec, profile, staged.artifact)
    say("writing")
    exported = finish(student.model, student.spec, staged.proto, manifest, golden, staged.attachments, out, started)
    if report is not None:
        say("writing the report")
        write_report(
            report,
            manifest=exported.artifact.manifest,
            profile=profile,
            truth=staged.comparison.truth,
            answers=staged.answers,
            layers=layer_errors(staged.exact, staged.proto, staged.feeds) if staged.feeds else [],
            file_bytes=exported.report.file_bytes,
        )
    return exported


def check_installed(profile: ExportProfile) -> None:
    """Check that the engines of a profile are installed, before any slow step.

    Raises:
        MissingExtraError: An engine is missing; the error names its extra.
    """
    for name in engines_of(profile):
        if not ENGINES[name].is_installed():
            extra = EXTRA_OF[ENGINES[name].library]
            raise MissingExtraError(
                f"engine '{name}', required by profile '{profile.name}', is not installed",
                f"the extra [{extra}]",
                f"pip install 'kd-edge[{extra}]', or choose another profile",
            )


def _manifest_fields(student: SavedStudent, recordings: Recordings) -> dict[str, Any]:
    """Manifest fields from a run's summary; temperature and threshold were fitted on its validation clips."""
    summary = student.summary
    return {
        "name": summary.recipe.name or student.path.resolve().name,
        "temperature": summary.temperature,
        "unknown_threshold": summary.unknown_threshold,
        "calibrated_on": recordings.side if recordings.validation else "",
        "accuracy": _accuracy(summary),
        "recipe_fingerprint": summary.recipe_fingerprint,
        "data_fingerprint": summary.data_fingerprint,
        "versions": {**{f"train_{name}": release for name, release in summary.versions.items()}, **versions()},
    }


def build_graph(model: ClipModel, spec: StudentSpec, profile: ExportProfile) -> onnx.ModelProto:
    """Export the float32 graph of a profile.

    Raises:
        ExportError: A streaming step is requested for a model that needs future frames, or torch's exporter silently
            chose another operator set.
    """
    preprocess = spec.preprocess
    proto = to_onnx(
        model,
        in_channels=preprocess.input_channels,
        input_px=preprocess.input_px,
        graph=profile.graph,
        opset=profile.opset,
    )
    if opset_of(proto) != profile.opset:
        raise ExportError(
            f"torch {torch.__version__} exports opset {opset_of(proto)}", f"opset {profile.opset}", "change opset"
        )
    return proto


def describe(model: ClipModel, spec: StudentSpec, profile: ExportProfile, **facts: Any) -> Manifest:
    """Create the manifest of a student; ``facts`` are the fields that its specification does not determine."""
    image_format, preprocess = spec.image_format, spec.preprocess
    states = state_shapes(model.backbone, preprocess.input_channels, preprocess.input_px)
    return Manifest(
        labels=spec.labels,
        modality=spec.modality,
        band=image_format.band,
        dtype=image_format.dtype,
        value_unit=image_format.value_unit,
        value_range=image_format.value_range,
        preprocess=preprocess,
        segments=spec.segments,
        clip_seconds=spec.clip_seconds,
        feature_size=model.backbone.feature_size,
        temporal=spec.model.temporal,
        states=tuple(StateSpec(name=n, shape=s) for n, s in states) if profile.graph == "step" else (),
        graph=profile.graph,
        precision=profile.precision,
        dataset=spec.data.model_dump(mode="json", exclude={"root", "exclude"}),
        split=spec.split,
        **facts,
    )


def finish(
    model: ClipModel,
    spec: StudentSpec,
    proto: onnx.ModelProto,
    manifest: Manifest,
    golden: GoldenClip | None,
    attachments: Mapping[str, bytes],
    out: Path,
    started: float,
) -> Exported:
    """Write the artifact, load it again and create the report."""
    try:
        # model_copy does not validate the changed fields.
        Manifest.model_validate_json(manifest.model_dump_json(), strict=True)
    except ValidationError as error:
        raise ExportError(
            f"a manifest that no robot could read ({fault(error)})",
            "figures within bounds",
            "check the run's summary.json",
        ) from error
    graph = proto.SerializeToString()
    write(graph, manifest, golden, out, attachments=attachments)
    step_flops, clip_flops = count_flops(model, spec.preprocess.input_channels, spec.preprocess.input_px)
    report = ExportReport(
        file=out,
        file_bytes=out.stat().st_size,
        graph_bytes=len(graph),
        golden_frames=0 if golden is None else len(golden.frames),
        precision=manifest.precision,
        graph=manifest.graph,
        opset=opset_of(proto),
        nodes=len(proto.graph.node),
        parameters=count_parameters(model),
        step_flops=step_flops,
        clip_flops=clip_flops,
        parity=manifest.parity,
        kept_float32=manifest.kept_float32,
        calibrated_on=manifest.calibrated_on,
        health=manifest.health,
        familiar_fitted_on="" if manifest.familiar is None else manifest.familiar.fitted_on,
        seconds=time.monotonic() - started,
    )
    return Exported(load(out), report)


def _golden(model: ClipModel, spec: StudentSpec, profile: ExportProfile, artifact: Artifact) -> GoldenClip | None:
    """Create the golden clip of a step, with the trained model's logits, or the graph's own logits for int8."""
    if profile.graph != "step":
        return None
    if not profile.precision.startswith("int8"):
        return draw_golden(model.answer, spec, profile)
    with open_here(artifact) as engine:
        return draw_golden(engine.run_clip, spec, profile)


def draw_golden(answer: Callable[[Float32], Float32], spec: StudentSpec, profile: ExportProfile) -> GoldenClip:
    """Create the golden clip of a student, with the logits that ``answer`` returns for it."""
    return golden_clip(
        answer,
        spec.preprocess,
        spec.image_format,
        segments=spec.segments,
        clip_seconds=spec.clip_seconds,
        bound=profile.golden_tolerance,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that create the artifact."""
    ort = load_onnxruntime()
    return {
        "kd_edge": kd_edge.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }


def _accuracy(summary: Summary) -> dict[str, float]:
    """The scalar test metrics of the student."""
    report = summary.stages.get("student")
    figures = {} if report is None or report.test is None else report.test.model_dump()
    return {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}
