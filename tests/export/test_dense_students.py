"""Students that ship: regressed numbers beside the feature, a tcn head on stored features, a crop about the person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge import recipes
from kd_edge.engines import open_engine
from kd_edge.export.exporter import export
from kd_edge.export.profile import ExportProfile
from kd_edge.models.saved import SavedStudent
from tests.runs import tiny_values
from tests.shared import Trained

LOOSE = ("max_abs_error=10", "min_argmax_agreement=0", "min_stream_agreement=0", "max_accuracy_drop=1", "health=false")
"""A network that trained for a second has no margin between its classes; what is asked here are its numbers."""


def dense_student() -> dict[str, object]:
    values = tiny_values(name="dense", teacher=None, losses=[], segments=16, windows="stream")
    values["student"]["model"] = {"backbone": "resnet8_grid", "temporal": "tcn", "hidden": 8}
    values["student"]["preprocess"] = {
        "resize_px": 36,
        "input_px": 32,
        "motion_offsets_ms": [0, 67],
        "region": {"kind": "person", "low": 60, "focal": None},
        "window": {"kind": "relative", "low": 60, "high": 255, "span": 80.0},
    }
    targets = [{"kind": "signals", "sensors": ["accelerometer"], "smooth_ms": 0}]
    values["stages"] = [
        {"kind": "dense", "targets": targets, "epochs": 1, "frames": 2, "batch_size": 6},
        {"kind": "head", "epochs": 1, "passes": 1, "batch_size": 6},
    ]
    return values


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "relative"), [("fp16", 5e-3), pytest.param("int8", 0.2, marks=pytest.mark.slow)])
def test_a_dense_student_ships_in_every_precision(
    trained: Trained, tmp_path: Path, profile: str, relative: float
) -> None:
    run = trained(dense_student())
    settings = recipes.load("export", profile, ExportProfile, LOOSE)
    artifact = export(run, settings, tmp_path / "student.onnx").artifact
    manifest, student = artifact.manifest, SavedStudent.load(run)
    assert (manifest.precision, manifest.segments, manifest.temporal) == (profile, 16, "tcn")
    assert manifest.preprocess.region.kind == "person"
    assert student.spec.model.regressed == 3, "the accelerometer stays in the student"
    assert manifest.parity is not None
    _, plain, lower = manifest.parity.stages
    assert plain.relative_error < 1e-5, "the float32 graph"
    assert lower.relative_error < relative
    with open_engine(artifact) as engine:
        binding = engine.bind(1)
        binding.frame[:] = np.random.default_rng(0).normal(size=binding.frame.shape)
        binding.run()
        assert binding.feature.shape == (1, manifest.feature_size)
        assert np.isfinite(binding.feature).all()
        assert binding.feature[0, -3:].any(), "what was regressed is the feature's end"
