from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.rundir import MetricsLine
from kd_edge.train.results.plots import percent, plot_confusion, plot_confusion_change, plot_curves


@pytest.mark.slow
def test_curves_and_confusion_are_pictures(tmp_path: Path) -> None:
    validation = {"loss": 1.0, "accuracy": 0.5}
    lines = [
        MetricsLine(
            stage=stage,
            epoch=epoch,
            losses={"ce": 1 / epoch, "total": 2 / epoch},
            train_accuracy=0.1 * epoch,
            learning_rate=0.1,
            validation=validation,
        )
        for stage in ("teacher", "student")
        for epoch in (1, 2, 3)
    ]
    plot_curves(lines, tmp_path / "plots" / "curves.png")
    counts = np.random.default_rng(0).integers(0, 20, (27, 27))
    counts[3] = 0  # a class without a test clip
    plot_confusion(counts.tolist(), [f"a rather long class name {i}" for i in range(27)], "27", tmp_path / "c.png")
    for name in ("plots/curves.png", "c.png"):
        image = cv2.imread(str(tmp_path / name))
        assert image is not None
        assert image.std() > 10


def test_counts_become_percent_of_the_true_class() -> None:
    np.testing.assert_allclose(percent([[3, 1], [0, 0]]), [[75, 25], [0, 0]])


def test_the_change_between_two_matrices_is_signed(tmp_path: Path) -> None:
    """Ten points more are blue, ten fewer red; the left half is the matrix itself, in blues."""
    labels, counts = ("sit", "stand"), [[9, 1], [0, 10]]
    plot_confusion_change(counts, [[8, 2], [0, 10]], labels, ("now", "change"), tmp_path / "change.png")
    image = cv2.imread(str(tmp_path / "change.png"))
    assert image is not None
    left, right = np.split(image.astype(int), 2, axis=1)
    redder = [(half[:, :, 2] - half[:, :, 0] > 60).sum() for half in (left, right)]
    bluer = [(half[:, :, 0] - half[:, :, 2] > 60).sum() for half in (left, right)]
    assert redder[0] == 0
    assert min(redder[1], *bluer) > 1000
