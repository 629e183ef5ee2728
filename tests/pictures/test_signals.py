"""Signals and their images: as a sensor teacher sees them, and what is said where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data import Sample, SignalFormat, open_dataset
from kd_edge.errors import DataError
from kd_edge.pictures.signals import as_rgb, draw_sensed, draw_signals, sense
from kd_edge.train.recipe import SensorTeacherConfig
from kd_edge.types import Clip
from tests.pictures.conftest import picture, view_of
from tests.pictures.runs import DATA, SENSORS, write_student

SECOND = 1_000_000_000


class Worn:
    """One sample; its accelerometer is a ramp, the gyroscope is missing, and the third has recorded one tenth."""

    name = "worn"
    labels = ("wave", "clap")
    samples = (Sample("a1_s1_t1", "1", "front", "1", 0),)
    sensors = ("accelerometer", "gyroscope", "late")
    modalities = ("depth", *sensors)

    def open(self, sample: Sample, modality: str) -> Clip:
        if modality == "gyroscope":
            raise DataError(f"{sample.id}_gyro.csv is not there", "a file", "fetch it")
        ramp = np.linspace(0, 1, 51, dtype=np.float32)
        stamps = np.arange(51, dtype=np.int64) * 20_000_000
        if modality == "late":
            ramp, stamps = ramp[:6], stamps[:6]
        return Clip(np.stack([ramp, -ramp, ramp**2], axis=1), stamps)

    def content_key(self, sample: Sample, modality: str) -> str:
        return f"{sample.id}-{modality}"

    def signal_format(self, sensor: str) -> SignalFormat:
        return SignalFormat("g", (-1.0, 1.0), 50.0)


def test_fields_are_cosines_of_summed_angles() -> None:
    (found,) = sense(Worn(), Worn.samples[0], 0, SECOND, _teacher(points=32))  # type: ignore[arg-type]
    ramp = np.linspace(-1, 1, 32)  # each axis from its lowest to its highest value
    angles = np.arccos([ramp, -ramp])
    expected = np.cos(angles[:, :, None] + angles[:, None, :])
    assert found.fields is not None
    assert found.fields.shape == (3, 32, 32)
    assert found.fields.dtype == np.float32
    # bin means pull the ends of a ramp in a little: scaled to its own range it is a ramp again
    np.testing.assert_allclose(found.fields[:2], expected, atol=2e-2)
    assert found.sensor == "accelerometer"
    assert found.unit == "g"
    assert found.signal is not None
    assert found.signal.values.shape == (51, 3)


def test_a_sensors_range_keeps_the_size() -> None:
    teacher = _teacher(points=32, scaling="sensor", ranges={"accelerometer": (-4.0, 4.0)})
    (found,) = sense(Worn(), Worn.samples[0], 0, SECOND, teacher)  # type: ignore[arg-type]
    assert found.fields is not None
    values = np.diagonal(found.fields[0])  # 2 x^2 - 1, x = value / 4
    assert values.min() == pytest.approx(-1, abs=0.01)
    assert values.max() == pytest.approx(2 / 16 - 1, abs=0.03)


def test_sensors_that_are_not_there_are_named() -> None:
    found = sense(Worn(), Worn.samples[0], 0, SECOND)  # type: ignore[arg-type]
    assert [one.sensor for one in found] == ["accelerometer", "gyroscope", "late"]
    assert found[0].fields is not None
    assert found[0].fields.shape == (3, 224, 224)
    assert found[1].lacking == "a1_s1_t1_gyro.csv is not there"
    assert found[1].signal is None
    assert found[2].lacking == "late covers less than half of the clip"
    assert found[1].fields is found[2].fields is None


@pytest.mark.slow
def test_a_row_per_sensor_even_without_images(tmp_path: Path) -> None:
    found = sense(Worn(), Worn.samples[0], 0, SECOND)  # type: ignore[arg-type]
    draw_sensed(found, "title", "caption", (0, SECOND), tmp_path / "three.png")
    draw_sensed(found[:1], "title", "caption", (0, SECOND), tmp_path / "one.png")
    three, one = picture(tmp_path / "three.png"), picture(tmp_path / "one.png")
    assert three.shape[0] > 2 * one.shape[0]
    assert three.shape[1] == one.shape[1]


def test_axes_are_red_green_and_blue() -> None:
    fields = np.stack([np.full((2, 2), v, np.float32) for v in (-1.000001, 0, 1)])
    assert as_rgb(fields)[1, 1].tolist() == [0, 128, 255]


@pytest.mark.slow
def test_the_picture_of_a_run(run: Path, tmp_path: Path) -> None:
    assert draw_signals(view_of(run), tmp_path / "own" / "gaf.png") == ""
    taught = write_student(
        tmp_path / "taught", teacher={**SENSORS, "semantic_weight": 0.0, "points": 64}, losses=[{"kind": "soft_target"}]
    )
    assert draw_signals(view_of(taught), tmp_path / "taught.png") == ""
    every, gyroscope = picture(tmp_path / "own" / "gaf.png"), picture(tmp_path / "taught.png")
    assert every.shape[0] > 1.5 * gyroscope.shape[0]  # two sensors and more, against the teacher's one


def test_reasons_for_having_no_picture(run: Path, tmp_path: Path) -> None:
    class Images:
        name, labels, modalities = "plain", ("a", "b"), ("ir",)

    view: Any = replace(view_of(run), dataset=Images())
    assert draw_signals(view, tmp_path / "gaf.png") == "plain has no wearable sensors"

    class Broken(Worn):
        def open(self, sample: Sample, modality: str) -> Clip:
            raise DataError(f"{sample.id} is damaged", "a file", "fetch it")

    view = replace(view_of(run), dataset=Broken(), sample=Worn.samples[0])
    assert "a1_s1_t1 is damaged" in draw_signals(view, tmp_path / "gaf.png")
    assert not list(tmp_path.iterdir())


def test_every_sensor_of_the_generated_figure_has_its_images() -> None:
    dataset = open_dataset(DATA)
    sample = dataset.samples[5]
    clip = dataset.open(sample, "nir")
    found = sense(dataset, sample, 0, int(clip.stamps_ns[-1]))
    assert {"accelerometer", "gyroscope"} <= {one.sensor for one in found}
    for one in found:
        assert one.fields is not None
        assert np.isfinite(one.fields).all()
        assert np.abs(one.fields).max() <= 1 + 1e-6
        np.testing.assert_allclose(one.fields, one.fields.transpose(0, 2, 1), atol=1e-6)


def _teacher(**changes: Any) -> SensorTeacherConfig:
    return SensorTeacherConfig.model_validate({"kind": "sensors", "sensors": ["accelerometer"], **changes})
