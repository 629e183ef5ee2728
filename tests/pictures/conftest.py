"""Run directories as the trainer leaves them, with random weights, and a network small enough for pencil and paper."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from kd_edge import rundir
from kd_edge.data import SyntheticData, Wearables, open_dataset
from kd_edge.models import Backbone, ClipModel, ModelConfig, build_model
from kd_edge.models.heads import ConsensusHead
from kd_edge.models.saved import SavedStudent
from kd_edge.pictures.view import View, look
from kd_edge.preprocess import PercentileWindow, Preprocess
from kd_edge.train.recipe import Recipe, SensorTeacherConfig
from kd_edge.train.results import run as runs
from kd_edge.train.teachers.sensors import SensorTeacher

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


def write_run(folder: Path, *, temporal: str = "tconv", epochs: int = 0, **recipe: Any) -> Path:
    """A finished run of a tiny student on near infrared motion stacks; with sensors, of its teacher too."""
    preprocess = Preprocess(
        resize_px=40, input_px=32, window=PercentileWindow(), motion_offsets_ms=(0, 70, 140), mean=(0.4,), std=(0.3,)
    )
    backbone = "tiny" if temporal in ("tsn", "tconv", "trn") else "resnet10_thin"
    model = {"backbone": backbone, "temporal": temporal, "hidden": 16, "bottleneck": 16}
    student = {"modality": "nir", "model": model, "preprocess": preprocess.model_dump(mode="json")}
    values = {"name": "thin", "data": DATA.model_dump(), "split": "subjects", "segments": 4, "student": student}
    resolved = Recipe.model_validate({"losses": [], **values, **recipe})
    runs.begin(folder, resolved)
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


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "thin-1")


def view_of(run: Path, sample: int = 0) -> View:
    """A sample of the data set as the run's student sees it."""
    student = SavedStudent.load(run)
    dataset = open_dataset(student.spec.data)
    return look(student, dataset, dataset.samples[sample])


def by_hand() -> ClipModel:
    """Two segments of 2 x 2 places: channels x and 2 x of a pixel x; classes 2 x + 2 x = 4 x and 0.5 - x, averaged."""
    convolution = nn.Conv2d(1, 2, 1, bias=False)
    head = ConsensusHead(2, 2, dropout=0.5)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        head.classifier.weight.copy_(torch.tensor([[2.0, 1.0], [-1.0, 0.0]]))
        head.classifier.bias.copy_(torch.tensor([0.0, 0.5]))
    parts = {"last": convolution, "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1)}
    return ClipModel(Backbone(parts, ("last",) * 4, (2,) * 4), head, segments=2)


def pixels() -> torch.Tensor:
    """A clip for it, (2, 1, 2, 2)."""
    first = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    return torch.stack([first, -first])[:, None]


def picture(path: Path) -> np.ndarray:
    """A PNG as (H, W, 3) int64; something must be on it."""
    image = cv2.imread(str(path))
    assert image is not None
    assert len(np.unique(image.astype(np.int64) @ [1, 256, 65536])) > 10
    return image.astype(np.int64)
