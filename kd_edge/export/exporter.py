"""Run directory to artifact: graph, precision, parity on real clips, golden clip, manifest, one file."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

import kd_edge
from kd_edge.artifact import Artifact, GoldenClip, Manifest, StateSpec, load, write
from kd_edge.data import open_dataset, validation_split
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import ExportError
from kd_edge.export.golden import golden_clip
from kd_edge.export.health import fit_artifact
from kd_edge.export.onnx import to_onnx
from kd_edge.export.parity import run_parity
from kd_edge.export.precision import convert
from kd_edge.export.profile import ExportProfile
from kd_edge.export.report import ExportReport, count_flops, count_parameters, opset_of
from kd_edge.models import ClipModel
from kd_edge.models.saved import SavedStudent, StudentSpec
from kd_edge.models.shift import state_shapes
from kd_edge.rundir import Summary


@dataclass(frozen=True, slots=True)
class Exported:
    """A written artifact, verified by reading it again."""

    artifact: Artifact
    report: ExportReport


def export(run: Path | str, profile: ExportProfile, out: Path, *, data_root: Path | None = None) -> Exported:
    """Export the student of a run.

    Args:
        run: A finished run directory.
        profile: Precision, graph and bounds.
        out: The artifact to write; replaced only when all went well.
        data_root: Where the run's recordings are, when they are neither generated nor in the recipe or environment.

    Raises:
        ExportError: No finished run, or the graph does not reproduce the student.
        DataError: The recordings for the comparison are not there.
        ArtifactError: ``out`` cannot be written.
    """
    started = time.monotonic()
    student = SavedStudent.load(run)
    summary, spec = student.summary, student.spec
    proto = build_graph(student.model, spec, profile)
    manifest = describe(
        student.model,
        spec,
        profile,
        name=_name(student),
        temperature=summary.temperature,
        unknown_threshold=summary.unknown_threshold,
        accuracy=_accuracy(summary),
        recipe_fingerprint=summary.recipe_fingerprint,
        data_fingerprint=summary.data_fingerprint,
        versions={**{f"train_{name}": release for name, release in summary.versions.items()}, **versions()},
    )
    with tempfile.TemporaryDirectory() as folder:
        unproven = Path(folder) / "student.onnx"
        write(proto.SerializeToString(), manifest, None, unproven)
        artifact, dataset = load(unproven), open_dataset(spec.data, data_root)
        manifest = manifest.model_copy(update={"parity": run_parity(student, artifact, profile, dataset)})
        if profile.health and profile.graph == "step":
            train, protocol = dataset.split(spec.split).train, summary.protocol
            _, held_out = validation_split(train, protocol.validation_subjects, protocol.validation_trials)
            fitted = fit_artifact(artifact, dataset, validation=held_out, clips=profile.health_clips)
            manifest = manifest.model_copy(update=fitted._asdict())
    return finish(student.model, spec, profile, proto, manifest, out, started)


def build_graph(model: ClipModel, spec: StudentSpec, profile: ExportProfile) -> onnx.ModelProto:
    """The graph of a profile, in its precision.

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
    return convert(proto, profile.precision)


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
    profile: ExportProfile,
    proto: onnx.ModelProto,
    manifest: Manifest,
    out: Path,
    started: float,
) -> Exported:
    """Add the golden clip (of a step graph), write the file, read it back and sum up."""
    golden: GoldenClip | None = None
    if profile.graph == "step":
        golden = golden_clip(model, spec.preprocess, spec.image_format, spec.clip_seconds, profile.golden_tolerance)
    graph = proto.SerializeToString()
    write(graph, manifest, golden, out)
    step_flops, clip_flops = count_flops(model, spec.preprocess.input_channels, spec.preprocess.input_px)
    report = ExportReport(
        file=out,
        file_bytes=out.stat().st_size,
        graph_bytes=len(graph),
        golden_frames=0 if golden is None else len(golden.frames),
        precision=profile.precision,
        graph=profile.graph,
        opset=opset_of(proto),
        nodes=len(proto.graph.node),
        parameters=count_parameters(model),
        step_flops=step_flops,
        clip_flops=clip_flops,
        parity=manifest.parity,
        health=manifest.health,
        familiar_fitted_on="" if manifest.familiar is None else manifest.familiar.fitted_on,
        seconds=time.monotonic() - started,
    )
    return Exported(load(out), report)


def versions() -> dict[str, str]:
    """Releases that made the artifact."""
    ort = load_onnxruntime()
    return {
        "kd_edge": kd_edge.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }


def _name(student: SavedStudent) -> str:
    return student.summary.recipe.name or student.path.resolve().name


def _accuracy(summary: Summary) -> dict[str, float]:
    """The scalar test figures of the student."""
    report = summary.stages.get("student")
    figures = {} if report is None or report.test is None else report.test.model_dump()
    return {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}
