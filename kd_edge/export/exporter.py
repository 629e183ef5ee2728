"""Run directory to artifact: graph, precision, parity on real clips, golden clip, manifest, one file."""

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
from kd_edge.export.staged import Say, check_carried, engines_of, export_threads, opened_here, stage
from kd_edge.files import check_writable
from kd_edge.models import ClipModel
from kd_edge.models.saved import SavedStudent, StudentSpec
from kd_edge.models.shift import state_shapes
from kd_edge.packages import EXTRA_OF
from kd_edge.rundir import Summary
from kd_edge.types import Float32

HEALTH_FLOPS = 1.5e12
"""Operations on all clips that healthy pictures and familiar windows are fitted on: fifteen seconds on one core."""


def _silent(_: str) -> None:
    """Nobody is told."""


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
    say: Say = _silent,
) -> Exported:
    """Export the student of a run.

    Every stage is compared with the trained model on clips that were held out; out of the profile's bounds, nothing is
    written.

    Args:
        run: A finished run directory.
        profile: Precision, graph and bounds.
        out: The artifact to write; replaced only when all went well.
        data_root: Where the run's recordings are, when they are neither generated nor in the recipe or environment.
        auto_precision: Keep the nodes in float32 without which a lower precision is out of bounds.
        report: Folder for a page about the export, Markdown and HTML.
        say: Told what is being done.

    Raises:
        ExportError: No finished run, or the graph does not reproduce the student.
        DataError: The recordings for the comparison are not there.
        ArtifactError: ``out`` cannot be written.
        MissingExtraError: An engine or converter that the profile asks for is not installed.
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
    manifest = describe(student.model, student.spec, profile, **_facts(student, recordings))
    with tempfile.TemporaryDirectory() as folder:
        staged = stage(
            student, recordings, profile, exact, manifest, Path(folder), auto_precision=auto_precision, say=say
        )
        manifest = staged.manifest
        if profile.health and profile.graph == "step":
            say("fitting what healthy pictures and familiar windows are like")
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
    """Refuse a profile that asks for an engine this machine lacks, before anything takes time.

    Raises:
        MissingExtraError: It does; the extra is named.
    """
    for name in engines_of(profile):
        if not ENGINES[name].is_installed():
            extra = EXTRA_OF[ENGINES[name].library]
            raise MissingExtraError(
                f"engine '{name}', which profile '{profile.name}' asks for, is not installed",
                f"the extra [{extra}]",
                f"pip install 'kd-edge[{extra}]', or choose another profile",
            )


def _facts(student: SavedStudent, recordings: Recordings) -> dict[str, Any]:
    """What a run's summary says of its student; temperature and threshold were fitted on its validation clips."""
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
    """The float32 graph of a profile.

    Raises:
        ExportError: A streaming step of a model that looks into the future, or the exporter silently chose another
            operator set.
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
    """The manifest of a student; ``facts`` are the fields that its specification does not decide."""
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
    """Write the file, read it back and sum up."""
    try:
        Manifest.model_validate_json(
            manifest.model_dump_json(), strict=True
        )  # copies with other fields were not checked
    except ValidationError as error:
        raise ExportError(
            f"a manifest that no robot could read ({fault(error)})",
            "figures within bounds",
            "look at the run's summary.json",
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
    """The self-test of a step: held to the trained model's logits, or, where integers round, to the graph's own."""
    if profile.graph != "step":
        return None
    if not profile.precision.startswith("int8"):
        return draw_golden(model.answer, spec, profile)
    with opened_here(artifact) as engine:
        return draw_golden(engine.run_clip, spec, profile)


def draw_golden(answer: Callable[[Float32], Float32], spec: StudentSpec, profile: ExportProfile) -> GoldenClip:
    """The golden clip of a student, with the logits that ``answer`` gives it."""
    return golden_clip(
        answer,
        spec.preprocess,
        spec.image_format,
        segments=spec.segments,
        clip_seconds=spec.clip_seconds,
        bound=profile.golden_tolerance,
    )


def versions() -> dict[str, str]:
    """Releases that made the artifact."""
    ort = load_onnxruntime()
    return {
        "kd_edge": kd_edge.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }


def _accuracy(summary: Summary) -> dict[str, float]:
    """The scalar test figures of the student."""
    report = summary.stages.get("student")
    figures = {} if report is None or report.test is None else report.test.model_dump()
    return {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}
