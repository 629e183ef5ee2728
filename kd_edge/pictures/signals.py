"""What a sample's wearable sensors measured, and the images that are made of it (the SAKDN paper's Fig. 3)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_edge.data import Dataset, Sample, Wearables
from kd_edge.data.signals.load import Signal, Signals, load_signals
from kd_edge.errors import ConfigError, DataError
from kd_edge.pictures.strips import Rgb, heading, save
from kd_edge.pictures.view import View
from kd_edge.train.gaf import gramian_angular_field
from kd_edge.train.recipe import SensorTeacherConfig
from kd_edge.train.results.run import load_recipe
from kd_edge.train.teachers.sensors import SCALED, scale_signals, sensor_ranges
from kd_edge.types import Float32

POINTS = 224
"""Number of points of a signal, where the run has no teacher that says how many."""
AXES = ("x", "y", "z")
COLOURS = ("#0072b2", "#e69f00", "#009e73")
"""Colours of the axes; told apart by the colour-blind too (Okabe and Ito)."""


@dataclass(frozen=True, slots=True)
class Sensed:
    """One sensor's recording of a sample.

    Attributes:
        sensor: Name of the sensor.
        unit: Unit of the signal's values.
        signal: Signal as recorded; None where the sample lacks it.
        fields: (3, n, n) float32 in [-1, 1], one Gramian angular field per axis; None where there is none.
        lacking: Why there are no fields; empty when there are.
    """

    sensor: str
    unit: str
    signal: Signal | None
    fields: Float32 | None
    lacking: str = ""


def sense(
    dataset: Dataset, sample: Sample, start_ns: int, end_ns: int, teacher: SensorTeacherConfig | None = None
) -> list[Sensed]:
    """A sample's signals over the time of its clip, and their fields as a sensor teacher sees them.

    Args:
        dataset: Data set with wearable sensors.
        sample: The sample.
        start_ns: Time of the clip's first image.
        end_ns: Time of the clip's last image.
        teacher: Says which sensors, how many points and how they are scaled; None takes all sensors, 224 points, and
            each axis' own lowest and highest value.

    Raises:
        DataError: No sensor recorded this sample.
    """
    assert isinstance(dataset, Wearables)
    sensors = dataset.sensors if teacher is None else teacher.sensors
    points = POINTS if teacher is None else teacher.points
    signals = sample_signals(dataset, sample, sensors)
    used = signals.on_clips({sample.id: (start_ns, end_ns)})
    resampled = used.points(sample.id, start_ns, end_ns, points)  # (m, 3, n)
    config = teacher or SensorTeacherConfig(sensors=sensors)
    scaled = scale_signals(torch.from_numpy(resampled)[None], config, sensor_ranges(config, signals.formats))[0]
    images = gramian_angular_field(scaled, value_range=SCALED).numpy()
    found = []
    for sensor, form, image in zip(sensors, signals.formats, images, strict=True):
        lacking = used.lacking[sensor].get(sample.id, "")
        fields = None if lacking else image
        found.append(Sensed(sensor, form.unit, signals.signal(sample.id, sensor), fields, lacking))
    return found


def sample_signals(dataset: Dataset, sample: Sample, sensors: Sequence[str]) -> Signals:
    """The signals of one sample, which is not worth a file in the cache.

    Raises:
        DataError: No sensor recorded it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return load_signals(dataset, [sample], sensors, root=Path(folder))


def sensor_teacher(run: Path) -> SensorTeacherConfig | None:
    """The sensor teacher of a run's recipe, where it has one."""
    try:
        return load_recipe(run).wearables
    except ConfigError:  # of another release: drawn as without a teacher
        return None


def draw_signals(view: View, path: Path) -> str:
    """Draw each sensor's signals, its three fields, and the image that has them as red, green and blue.

    Args:
        view: The sample.
        path: The PNG to write.

    Returns:
        Why there is no such picture; empty when there is one.

    Raises:
        DataError: The picture cannot be written.
    """
    if not isinstance(view.dataset, Wearables) or not view.dataset.sensors:
        return f"{view.dataset.name} has no wearable sensors"
    start, end = view.span_ns
    teacher = sensor_teacher(view.student.path)
    try:
        found = sense(view.dataset, view.sample, start, end, teacher)
    except DataError as error:
        return error.found
    scaling = "each axis from its lowest to its highest value"
    if teacher is not None and teacher.scaling == "sensor":
        scaling = "each sensor by its range"
    if teacher is not None and teacher.interval == "unit":
        scaling += " to [0, 1]"
    named = f"{view.sample.id} of {view.dataset.name}, '{view.dataset.labels[view.sample.label]}'"
    points = next((len(s.fields[0]) for s in found if s.fields is not None), 0)
    draw_sensed(
        found,
        f"{named}: wearable sensors",
        f"Gramian angular summation fields of {points} points over the clip, scaled {scaling}: blue -1, red +1",
        (start, end),
        path,
    )
    return ""


def draw_sensed(found: Sequence[Sensed], title: str, caption: str, span_ns: tuple[int, int], path: Path) -> None:
    """Draw one row per sensor: signals over time, a field per axis, and their image.

    Args:
        found: The sensors' recordings, from ``sense``.
        title: Title of the picture.
        caption: Smaller text below the title.
        span_ns: Start and end of the clip.
        path: The PNG to write.

    Raises:
        DataError: The picture cannot be written.
    """
    height = 1.0 + 2.75 * len(found)
    figure = Figure(figsize=(15.5, height), dpi=100)
    heading(figure, title, caption)
    grid = figure.add_gridspec(
        len(found), 5, width_ratios=(1.75, 1, 1, 1, 1), left=0.055, right=0.985, wspace=0.14, hspace=0.34,
        top=1 - 1.15 / height, bottom=0.5 / height,
    )  # fmt: skip
    for row, sensed in enumerate(found):
        axes = [figure.add_subplot(grid[row, column]) for column in range(5)]
        _draw_signal(axes[0], sensed, span_ns)
        if sensed.fields is None:
            for axis in axes[1:]:
                axis.set_axis_off()
            axes[1].text(0, 0.5, f"no image: {sensed.lacking}", transform=axes[1].transAxes, fontsize=11)
            continue
        for axis, name, field in zip(axes[1:4], AXES, sensed.fields, strict=True):
            axis.imshow(field, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            _bare(axis, f"field of {name}")
        axes[4].imshow(as_rgb(sensed.fields), interpolation="nearest")
        _bare(axes[4], "x, y, z as red, green, blue")
    save(figure, path)


def as_rgb(fields: Float32) -> Rgb:
    """Fields (3, n, n) in [-1, 1] of the axes x, y and z as red, green and blue: (n, n, 3) uint8."""
    return ((np.clip(fields, -1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)


def _draw_signal(axis: Axes, sensed: Sensed, span_ns: tuple[int, int]) -> None:
    axis.set_title(sensed.sensor, fontsize=12, loc="left")
    axis.set_xlabel("s", fontsize=10)
    axis.set_ylabel(sensed.unit, fontsize=10)
    axis.tick_params(labelsize=10)
    if sensed.signal is None:
        axis.set_axis_off()
        return
    seconds = sensed.signal.stamps_ns / 1e9
    for name, colour, values in zip(AXES, COLOURS, sensed.signal.values.T, strict=True):
        axis.plot(seconds, values, color=colour, label=name, linewidth=1.3)
    axis.set_xlim(span_ns[0] / 1e9, max(span_ns[1], span_ns[0] + 1) / 1e9)
    axis.grid(alpha=0.3)
    axis.legend(
        fontsize=10, loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=3, frameon=False,
        handlelength=1.2, columnspacing=0.8,
    )  # fmt: skip


def _bare(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])
