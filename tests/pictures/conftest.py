"""A run with random weights, and a network small enough for pencil and paper."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from kd_edge.data import open_dataset
from kd_edge.models import Backbone, ClipModel
from kd_edge.models.heads import ConsensusHead
from kd_edge.models.saved import SavedStudent
from kd_edge.pictures.view import View, look
from tests.pictures.runs import write_student


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("runs") / "thin-1")


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
