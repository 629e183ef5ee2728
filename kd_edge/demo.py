"""The whole way on generated data: train a teacher and a student, export the student, run it on a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kd_edge import recipes
from kd_edge.export.exporter import Exported, export
from kd_edge.export.profile import ExportProfile
from kd_edge.runtime import stream
from kd_edge.train.recipe import Recipe
from kd_edge.train.trainer import Event, train
from kd_edge.types import Prediction

CAMERA = "synthetic:?seed=7"


@dataclass(frozen=True, slots=True)
class Watched:
    """How the live labels did: those a robot may act on, and the right ones among them."""

    seconds: float
    labels: int
    right: int


def demo_train(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> Iterator[Event]:
    """Train the quickstart recipe in ``folder``; yields the trainer's events."""
    return train(recipes.load("train", "quickstart", Recipe), folder, progress=progress)


def demo_export(folder: Path) -> Exported:
    """Export the student of ``folder`` to ``student.onnx`` in it, half precision."""
    profile = recipes.load("export", "fp16", ExportProfile)
    return export(folder, profile, folder / "student.onnx")


def demo_stream(model: Path, seconds: float) -> Iterator[Prediction | Watched]:
    """Let the student watch the synthetic camera: yields each change of label or state, and the score at the end."""
    labels = right = 0
    shown: tuple[str | None, str] | None = None
    start = time.monotonic()
    with stream(model=model, camera=CAMERA) as live:
        for prediction in live:
            if prediction.label is not None:
                labels += 1
                right += prediction.label == prediction.truth
            if shown != (prediction.label, prediction.state.value):
                shown = prediction.label, prediction.state.value
                yield prediction
            if time.monotonic() - start > seconds:
                break
    yield Watched(time.monotonic() - start, labels, right)
