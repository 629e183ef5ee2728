"""End-to-end demo on generated data: train a teacher, and a student with and without it; export the student; run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from kd_edge import recipes
from kd_edge.export.exporter import Exported, export
from kd_edge.export.profile import ExportProfile
from kd_edge.machine import has_bfloat16
from kd_edge.runtime import stream
from kd_edge.runtime.tally import Tally
from kd_edge.train.recipe import Recipe
from kd_edge.train.trainer import Event, train
from kd_edge.types import Prediction

CAMERA = "synthetic:?seed=7"
ALONE = "alone"
"""Folder of the student trained alone, inside the run directory of the distilled one."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Score of the live labels, and the time they were watched."""

    seconds: float
    tally: Tally


def demo_train(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> Generator[Event, None, None]:
    """Train the recipe ``demo`` in ``folder``, then ``demo_alone``, the control without a teacher, below it.

    Uses float32 on a processor that only emulates bfloat16, where training would take hours.

    Yields:
        The trainer's events of both runs, each with a ``Finished`` of its own.
    """
    changes = [] if has_bfloat16() else ["precision=32-true"]
    for recipe, place in (("demo", folder), ("demo_alone", folder / ALONE)):
        yield from train(recipes.load("train", recipe, Recipe, changes), place, progress=progress)


def demo_export(folder: Path) -> Exported:
    """Export the student of ``folder`` to ``folder/student.onnx``, in half precision wherever that is exact enough."""
    profile = recipes.load("export", "fp16", ExportProfile)
    return export(folder, profile, folder / "student.onnx", auto_precision=True)


def demo_stream(model: Path, seconds: float) -> Iterator[Prediction | Watched]:
    """Run the student on the synthetic camera: yields each change of label or state, and the score at the end."""
    watched = Tally()
    shown: tuple[str | None, str] | None = None
    start = time.monotonic()
    with stream(model=model, camera=CAMERA) as live:
        for prediction in live:
            watched.add(prediction)
            if shown != (prediction.label, prediction.state.value):
                shown = prediction.label, prediction.state.value
                yield prediction
            if time.monotonic() - start > seconds:
                break
    yield Watched(time.monotonic() - start, watched)
