from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kd_edge.train.plots import plot_confusion, plot_curves


def test_curves_and_confusion_are_pictures(tmp_path: Path) -> None:
    validation = {"loss": 1.0, "accuracy": 0.5}
    lines = [
        {
            "stage": stage,
            "epoch": epoch,
            "losses": {"ce": 1 / epoch, "total": 2 / epoch},
            "train_accuracy": 0.1 * epoch,
            "learning_rate": 0.1,
            "validation": validation,
        }
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
