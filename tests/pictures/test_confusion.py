"""The worst pairs of a confusion matrix, and the picture of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.errors import DataError
from kd_edge.pictures.confusion import ConfusedPair, confused_pairs, confusion_of, draw_confusion
from kd_edge.rundir import Summary

LABELS = ("drop", "sitting down", "standing up")


def summary(counts: list[list[int]], labels: tuple[str, ...] = LABELS) -> Summary:
    right = float(np.trace(np.array(counts)) / np.sum(counts))
    test = {"accuracy": right, "per_class": dict.fromkeys(labels, 0.0), "confusion": counts}
    return Summary(stages={"student": {"backbone": "resnet18", "modality": "ir", "test": test}})


NOW = summary([[10, 0, 0], [1, 38, 11], [0, 4, 16]])
BEFORE = summary([[5, 5, 0], [0, 50, 0], [2, 3, 15]])


def test_the_worst_pairs_come_first() -> None:
    confusion = confusion_of(NOW, "student", Path("runs/mgcam"))
    assert confused_pairs(confusion) == [
        ConfusedPair("sitting down", "standing up", 11, 0.22),
        ConfusedPair("standing up", "sitting down", 4, 0.2),
        ConfusedPair("sitting down", "drop", 1, 0.02),
    ]
    assert confused_pairs(confusion, most=1) == [ConfusedPair("sitting down", "standing up", 11, 0.22)]


def test_pairs_are_compared_with_another_run() -> None:
    now, before = (confusion_of(s, "student", Path("runs") / n) for s, n in ((NOW, "now"), (BEFORE, "before")))
    first, second, third = confused_pairs(now, before)
    assert first.change == pytest.approx(0.22)
    assert second.change == pytest.approx(0.2 - 0.15)
    assert third.change == pytest.approx(0.02)


def test_a_class_without_a_clip_is_confused_with_nothing() -> None:
    perfect = confusion_of(summary([[3, 0, 0], [0, 0, 0], [0, 0, 2]]), "student", Path("run"))
    assert confused_pairs(perfect) == []


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    now = confusion_of(NOW, "student", Path("runs/now"))
    other = confusion_of(summary([[1, 0], [0, 1]], ("wave", "clap")), "student", Path("runs/other"))
    with pytest.raises(DataError, match="run now knows 3 classes, other other ones"):
        confused_pairs(now, other)
    with pytest.raises(DataError, match="run now knows 3 classes"):
        draw_confusion(now, tmp_path / "never.png", other)
    with pytest.raises(DataError, match=r"runs/now has no stage 'studnt' \(did you mean 'student'\?\)"):
        confusion_of(NOW, "studnt", Path("runs/now"))
    with pytest.raises(DataError, match=r"shape \(1, 1\) for 3 classes"):
        confusion_of(summary([[1]]), "student", Path("runs/now"))
    untested = Summary(stages={"teacher": {"test": None}})
    with pytest.raises(DataError, match="the teacher of run runs/now was not tested"):
        confusion_of(untested, "teacher", Path("runs/now"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pictures_of_a_run_and_of_the_change(tmp_path: Path) -> None:
    now, before = (confusion_of(s, "student", Path("runs") / n) for s, n in ((NOW, "now"), (BEFORE, "before")))
    draw_confusion(now, tmp_path / "plots" / "one.png")
    draw_confusion(now, tmp_path / "two.png", before)
    draw_confusion(now, tmp_path / "same.png", now)
    one, two, same = (cv2.imread(str(tmp_path / name)) for name in ("plots/one.png", "two.png", "same.png"))
    assert one is not None
    assert two is not None
    assert same is not None
    assert two.shape == same.shape
    assert two.shape[1] == 2 * one.shape[1]
    right = slice(two.shape[1] // 2, None)
    # fewer is red, more is blue; where nothing changed the right half has neither
    assert _saturation(two[:, right]) > 20 * _saturation(same[:, right])
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["one.png", "same.png", "two.png"]


def _saturation(image: np.ndarray) -> float:
    return float(np.mean(image.max(axis=2).astype(int) - image.min(axis=2))) + 0.01
