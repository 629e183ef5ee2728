"""Run directories as the trainer leaves them, with random weights: recipe, curves, student and sensor teacher."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kd_edge import rundir
from kd_edge.data import SyntheticData, Wearables, open_dataset
from kd_edge.models import ModelConfig, build_model
from kd_edge.preprocess import Preprocess
from kd_edge.train.recipe import Recipe, SensorTeacherConfig
from kd_edge.train.results import run as runs
from kd_edge.train.teachers.sensors import SensorTeacher
from kd_edge.window import PercentileWindow

DATA = SyntheticData(clips_per_class=4, subjects=4, height_px=64, width_px=80)
LINES = [
    {
        "stage": "student", "epoch": epoch, "losses": {"ce": 2.0 / epoch, "total": 2.0 / epoch}, "learning_rate": 0.1,
        "train_accuracy": 0.2 * epoch, "validation": None,
    }
    for epoch in (1, 2, 3)
]  # fmt: skip
SENSORS = {
    "kind": "sensors", "sensors": ["gyroscope"], "points": 32, "model": {"network": "resnet18", "width": 6},
}  # fmt: skip


def write_student(folder: Path, *, temporal: str = "tconv", epochs: int = 0, **recipe: Any) -> Path:
    """A finished run of a tiny student on near infrared motion stacks; with sensors, of its teacher too."""
    preprocess = Preprocess(
        resize_px=40, input_px=32, window=PercentileWindow(), motion_offsets_ms=(0, 70, 140), mean=(0.4,), std=(0.3,)
    )
    backbone = "tiny" if temporal in ("tsn", "tconv", "trn") else "resnet10_thin"
    model = {"backbone": backbone, "temporal": temporal, "hidden": 16, "bottleneck": 16}
    student = {"modality": "nir", "model": model, "preprocess": preprocess.model_dump(mode="json")}
    values = {"name": "thin", "data": DATA.model_dump(), "split": "subjects", "segments": 4, "student": student}
    resolved = Recipe.model_validate({"losses": [], **values, **recipe})
    with runs.begun(folder, resolved):
        pass
    dataset = open_dataset(DATA)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = build_model(ModelConfig.model_validate(model), preprocess.input_channels, len(dataset.labels), 4)
        runs.save_weights(folder / rundir.STUDENT, net.state_dict())
        if isinstance(resolved.teacher, SensorTeacherConfig):
            assert isinstance(dataset, Wearables)
            formats = [dataset.signal_format(sensor) for sensor in resolved.teacher.sensors]
            teacher = SensorTeacher(resolved.teacher, formats, len(dataset.labels))
            runs.save_weights(folder / rundir.TEACHER, teacher.state_dict())
    for line in LINES[:epochs]:
        rundir.append_metrics(folder, rundir.MetricsLine(**line))
    spec = {
        "model": model,
        "preprocess": preprocess.model_dump(mode="json"),
        "segments": 4,
        "clip_seconds": 2.0,
        "labels": dataset.labels,
        "modality": "nir",
        "data": DATA.model_dump(),
        "image_format": asdict(dataset.image_format("nir")),
        "split": "subjects",
    }
    protocol = {"skipped": {"a9_s9_t9": "a9_s9_t9_ir.avi ends after 3 frames"}}
    summary = {"complete": True, "recipe": {"name": "thin"}, "protocol": protocol, "student_model": spec}
    rundir.write_summary(folder, rundir.Summary(**summary, temperature=1.5))
    return folder
