"""Where a run's sensor teachers find what a class means: their semantically discriminative maps of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_edge.errors import DataError
from kd_edge.pictures.gsdm import run_semantics
from kd_edge.pictures.signals import as_rgb, sample_signals, sensor_teacher
from kd_edge.pictures.strips import Strip, coloured, draw_strips, positive_share, weighted
from kd_edge.pictures.view import View
from kd_edge.rundir import TEACHER
from kd_edge.train.distil.methods import GsdmLoss
from kd_edge.train.given import load_trained
from kd_edge.train.losses.gsdm import semantic_map, semantic_weights
from kd_edge.train.teachers.base import Tap
from kd_edge.train.teachers.sensors import SensorTeacher
from kd_edge.types import Float32

PLACE = "block5"
"""The teachers' last maps, the partner of the student's last stage."""
COLUMNS = ("image", "its map", "image times the map")


class SensorMap(NamedTuple):
    """One sensor teacher's view of a sample.

    Attributes:
        sensor: Name of the sensor.
        probabilities: (K,) float32, answer of the sensor's network.
        image: (3, n, n) float32 in [-1, 1], what its network sees.
        maps: (1, h, w) float32, >= 0.
    """

    sensor: str
    probabilities: Float32
    image: Float32
    maps: Float32


def sensor_maps(teacher: SensorTeacher, signals: Tensor, vectors: Tensor, options: GsdmLoss) -> list[SensorMap]:
    """Eq. 14 to 16 of the SAKDN paper for the sensors that one sample has; it stands alone, as in ``gsdm``.

    Args:
        teacher: Sensor teacher in eval mode, whose networks see images.
        signals: (1, m, 3, n) float32, NaN for a sensor that is not there; at least one is.
        vectors: (K, D) word vectors of the class names.
        options: Slope, embedding and weighting.
    """
    tap = Tap(PLACE, "mean")
    found = []
    with torch.no_grad():
        images, present = teacher.encode(signals)
        seen = teacher.observe(signals, [tap], ablate=True)
        for k in present[0].nonzero()[:, 0].tolist():
            omega = semantic_weights(
                seen[k].logits, seen[k].of_blank, vectors, slope=options.slope, embedding=options.embedding
            )  # (1, D)
            maps = semantic_map(seen[k].taps[tap], omega, weighting=options.weighting)  # (1, h, w)
            probabilities = seen[k].logits[0].softmax(dim=0)
            found.append(SensorMap(teacher.sensors[k], probabilities.numpy(), images[0, k].numpy(), maps.numpy()))
    return found


def draw_sensor_maps(view: View, path: Path, data_root: Path | None = None) -> str:
    """Draw each sensor's image, its map and the image weighted by it.

    Args:
        view: The sample.
        path: The PNG to write.
        data_root: Where vectors of class names are looked for too.

    Returns:
        Why there is no such picture; empty when there is one.

    Raises:
        DataError: The recipe's vectors cannot be read, or the picture not be written.
        TrainingError: The run's teacher is damaged.
    """
    teacher = _trained(view)
    if isinstance(teacher, str):
        return teacher
    semantics = run_semantics(view, data_root)
    if isinstance(semantics, str):
        return semantics
    try:
        recorded = sample_signals(view.dataset, view.sample, teacher.sensors).on_clips({view.sample.id: view.span_ns})
    except DataError as error:
        return error.found
    if view.sample.id in recorded.skipped:
        return "no sensor covers half of the clip"
    signals = torch.from_numpy(recorded.points(view.sample.id, *view.span_ns, teacher.points))[None]  # (1, m, 3, n)
    vectors, options = semantics
    found = sensor_maps(teacher, signals, vectors, options)
    labels, (height, width) = view.dataset.labels, found[0].maps.shape[1:]
    title = f"{view.sample.id} of {view.dataset.name}, '{labels[view.sample.label]}': sensor teachers"
    how = f"GSDM of {PLACE}, {height} x {width} places ({options.slope}, {options.embedding}, {options.weighting})"
    draw_strips([_strip(one, labels) for one in found], COLUMNS, title, how, path)
    return ""


def _trained(view: View) -> SensorTeacher | str:
    """The run's sensor teacher with its weights, or why there is none whose maps can be drawn."""
    config, weights = sensor_teacher(view.student.path), view.student.path / TEACHER
    if config is None:
        return "the run has no sensor teacher"
    if not weights.is_file():
        return f"the run has no {TEACHER}"
    labels = view.dataset.labels
    teacher = SensorTeacher(config, config.formats(view.dataset), len(labels)).eval()
    if not teacher.networks.takes_images:
        return f"the teachers' network '{config.model.network}' sees signals, not images"
    load_trained(teacher, weights)
    return teacher


def _strip(one: SensorMap, labels: Sequence[str]) -> Strip:
    """Image, map and product of one sensor."""
    best = int(one.probabilities.argmax())
    image, shares = as_rgb(one.image)[None], positive_share(one.maps)
    columns = np.concatenate([image, coloured(shares, (image.shape[1], image.shape[2])), weighted(image, shares)])
    empty = "" if one.maps.any() else "\n(empty map)"
    return Strip(f"{one.sensor}:\n{labels[best]} {one.probabilities[best]:.0%}{empty}", columns)
