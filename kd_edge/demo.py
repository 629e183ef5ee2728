"""The whole way on generated data: train a teacher and a student, export the student, run it on a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kd_edge import recipes
from kd_edge.export.export import Exported, export
from kd_edge.runtime import stream
from kd_edge.train.recipe import Recipe
from kd_edge.train.trainer import Event, Finished, train
from kd_edge.types import Prediction


@dataclass(frozen=True, slots=True)
class Watched:
    """How the live labels did: predictions a robot may act on, and the right ones among them."""

    seconds: float
    labels: int
    right: int


def demo(folder: Path, *, stream_seconds: float = 20.0) -> Iterator[Event | Exported | Prediction | Watched]:
    """Go the whole way; yields what happens as it happens.

    Args:
        folder: Where the run and the artifact land; must be new or empty.
        stream_seconds: How long the student watches the synthetic camera.

    Yields:
        The trainer's events, what was exported, every prediction, and the summary of the stream.
    """
    run: Path | None = None
    for event in train(recipes.load("train", "quickstart", Recipe), folder / "run"):
        yield event
        if isinstance(event, Finished):
            run = event.run
    assert run is not None
    exported = export(run, profile="fp16", out=folder / "student.onnx")
    yield exported
    labels = right = 0
    start = time.monotonic()
    with stream(model=exported.artifact.path, camera="synthetic:?seed=7", duration_seconds=stream_seconds) as live:
        for prediction in live:
            yield prediction
            if prediction.label is not None:
                labels += 1
                right += prediction.label == prediction.truth
    yield Watched(time.monotonic() - start, labels, right)
