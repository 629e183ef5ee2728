"""Wearable signals as dense targets: literal numbers at a frame's moment, on the sensor's axes and on gravity's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from kd_edge.data import Sample
from kd_edge.data.dataset import SignalFormat
from kd_edge.data.readers.berkeley_mhad import BerkeleyMhad
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.mmact import MMAct
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import ConfigError
from kd_edge.train.inputs.targets import gather_targets
from kd_edge.train.inputs.targets.base import StudentClips
from kd_edge.train.inputs.targets.signals import along_gravity, signals_of
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.student_stages import SignalTargets
from kd_edge.types import Clip
from tests.data.conftest import small_utd
from tests.runs import tiny_values

__all__ = ["small_utd"]

MS = 1_000_000
SAMPLE = Sample("a", "1", "", "1", 0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))


class Worn:
    """A data set of one sample, whose sensors measure what is given at 50 Hz from 0 on."""

    name, labels, samples, flip_labels = "worn", ("x",), (SAMPLE,), None

    def __init__(self, units: dict[str, str], **values: np.ndarray) -> None:
        self._units, self._values = units, values
        self.modalities = self.sensors = tuple(values)

    def open(self, sample: Sample, modality: str) -> Clip:
        values = self._values[modality].astype(np.float32)
        return Clip(values, np.arange(len(values), dtype=np.int64) * 20 * MS)

    def content_key(self, sample: Sample, modality: str) -> str:
        return f"{modality}-{self._values[modality].tobytes().hex()[:64]}-{len(self._values[modality])}"

    def signal_format(self, sensor: str) -> SignalFormat:
        unit = self._units[sensor]
        return SignalFormat(unit, (0.0, 360.0) if unit == "degree" else (-1000.0, 1000.0), 50.0)


def found(dataset: object, target: SignalTargets, stamps: list[int]) -> np.ndarray:
    when = np.array(stamps, dtype=np.int64) * MS
    clips = StudentClips(dataset, (SAMPLE,), {"a": when})  # type: ignore[arg-type]
    return signals_of(target, clips).values["a"]


def rising(samples: int = 51) -> np.ndarray:
    """x is the time in seconds, y ten times as much, z none of it."""
    seconds = np.arange(samples)[:, None] / 50
    return seconds * [1, 10, 0] + [0, 0, 1]


def test_a_number_is_that_of_the_frames_own_moment() -> None:
    """Of a signal that rises evenly, a mean about a moment is its value then; the first and last are held at the ends.

    At 40 ms a frame the mean at 0 goes from -20 to 20 ms, over 0 held and 0 to 0.02: 0.005 s.
    """
    target = SignalTargets(sensors=("acc",), smooth_ms=0)
    values = found(Worn({"acc": "g"}, acc=rising()), target, [0, 40, 80, 120, 160])
    np.testing.assert_allclose(values[:, 0], [0.005, 0.04, 0.08, 0.12, 0.16], atol=1e-6)
    np.testing.assert_allclose(values[:, 1], [0.05, 0.4, 0.8, 1.2, 1.6], atol=1e-5)
    np.testing.assert_allclose(values[:, 2], 1, atol=1e-6)


def test_frames_that_come_unevenly_have_their_own_moments_too() -> None:
    """Four frames were dropped between 120 and 320 ms."""
    values = found(Worn({"acc": "g"}, acc=rising()), SignalTargets(sensors=("acc",), smooth_ms=0), [80, 120, 320, 360])
    np.testing.assert_allclose(values[:, 0], [0.08, 0.12, 0.32, 0.36], atol=1e-6)


def test_the_moving_average_is_as_long_as_was_said() -> None:
    """A step at 200 ms: over three frames of 40 ms it is a third and two thirds on its way."""
    acc = np.zeros((51, 3))
    acc[10:] = 3  # between 180 and 200 ms the signal is a slope
    values = found(Worn({"acc": "g"}, acc=acc), SignalTargets(sensors=("acc",), smooth_ms=120), [*range(0, 400, 40)])
    mean = 3 * (20 - 2.5) / 40  # of the frame at 200: from 180 to 220, of which half of 20 ms rises
    raw = np.array([0, 0, 0, 0, 0, 3 * 30 / 40, 3, 3, 3, 3])
    assert mean < raw[5]
    padded = np.pad(raw, 1, mode="edge")
    np.testing.assert_allclose(values[:, 0], (padded[:-2] + padded[1:-1] + padded[2:]) / 3, atol=1e-5)


def test_nothing_is_known_where_a_sensor_does_not_measure() -> None:
    """It ends at 600 ms; up to 100 ms later it is taken to stay as it was."""
    values = found(Worn({"acc": "g"}, acc=rising(31)), SignalTargets(sensors=("acc",), smooth_ms=0), [0, 400, 700, 710])
    assert np.isnan(values).all(axis=1).tolist() == [False, False, False, True]


def test_angles_are_told_by_cosine_and_sine() -> None:
    """From 350 to 10 degrees there is no step."""
    angles = np.tile(np.array([[90.0, 180.0, 355.0]]), (51, 1))
    angles[:, 2] = (350 + np.arange(51) / 2.5) % 360
    dataset = Worn({"turn": "degree"}, turn=angles)
    values = found(dataset, SignalTargets(sensors=("turn",), smooth_ms=0), [200, 500, 800])
    expected = [[0, -1, math.cos(math.radians(a)), 1, 0, math.sin(math.radians(a))] for a in (354, 0, 6)]
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_gravity_of_a_tilted_device_at_rest() -> None:
    """It feels 1 g along (0.6, 0, 0.8), so that is upwards: of a rotation (10, 0, 0) that is 6, and 8 across."""
    still = np.tile([0.6, 0, 0.8], (51, 1))
    dataset = Worn({"acc": "g", "gyro": "degree/s"}, acc=still, gyro=np.tile([10.0, 0, 0], (51, 1)))
    target = SignalTargets(sensors=("acc", "gyro"), frame="gravity", same_device={"gyro": "acc"})
    values = found(dataset, target, [0, 100, 200])
    np.testing.assert_allclose(values, np.tile([1, 0, 6, 8], (3, 1)), atol=1e-5)
    groups = signals_of(target, StudentClips(dataset, (SAMPLE,), {"a": np.array([0, MS])})).groups  # type: ignore[arg-type]
    assert [(g.name, g.first, g.count) for g in groups] == [("acc", 0, 2), ("gyro", 2, 2)]


def test_a_push_sideways_by_hand() -> None:
    """(0.5, 0, 1) for one of ten moments, (0, 0, 1) else: the mean is (0.05, 0, 1), its length sqrt(1.0025); along it
    lie 0.5 * 0.05 + 1 = 1.025 of it, across 0.5 * 1 - 1 * 0.05 = 0.45 (the cross product)."""
    acc = np.tile(np.array([[0.0], [0], [1]]), (1, 21))
    acc[0, 10] = 0.5
    up, across = along_gravity(acc, acc, 10)
    length = math.sqrt(1.0025)
    assert up[10] == pytest.approx(1.025 / length)
    assert across[10] == pytest.approx(0.45 / length)
    assert (up[0], across[0]) == (pytest.approx(1), pytest.approx(0, abs=1e-9))


def test_turning_the_device_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    acc = rng.normal(0, 0.3, (3, 60)) + np.array([[0], [0], [1]])
    gyro = rng.normal(0, 50, (3, 60))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    np.testing.assert_allclose(along_gravity(turn @ gyro, turn @ acc, 9), along_gravity(gyro, acc, 9), atol=1e-9)
    # in (0, 0, 1) alone upwards is z
    np.testing.assert_allclose(along_gravity(gyro, np.tile([[0.0], [0], [1]], (1, 60)), 9)[0], gyro[2], atol=1e-12)


def test_who_falls_does_not_feel_where_upwards_is() -> None:
    acc = np.tile(np.array([[0.0], [0], [1]]), (1, 30))
    acc[:, 10:15] = 0
    up, across = along_gravity(acc, acc, 3)
    assert np.flatnonzero(np.isnan(up)).tolist() == np.flatnonzero(np.isnan(across)).tolist() == [11, 12, 13]
    assert np.isnan(along_gravity(acc, np.zeros((3, 30)), 3)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sensors": ("gyro",), "frame": "gravity"}, r"frame = 'gravity' with 'gyro' in degree/s\. Expected an accel"),
        (
            {"sensors": ("gyro",), "frame": "gravity", "same_device": {"gyro": "turn"}},
            "with 'turn' in degree, which 'gyro' is said to be worn with",
        ),
        (
            {"sensors": ("gyro",), "frame": "gravity", "same_device": {"gyro": "phone"}},
            "the dense target 'phone' with worn",
        ),
    ],
)
def test_gravity_needs_an_accelerometer(values: dict[str, object], message: str) -> None:
    still = np.tile([0.6, 0, 0.8], (51, 1))
    dataset = Worn({"acc": "g", "gyro": "degree/s", "turn": "degree"}, acc=still, gyro=still, turn=still)
    with pytest.raises(ConfigError, match=message):
        gather_targets(
            [SignalTargets.model_validate(values)],
            dataset,  # type: ignore[arg-type]
            {"a": np.array([0, MS])},
            (SAMPLE,),
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sensors": ("a", "a")}, "names one twice"),
        ({"sensors": ("a",), "same_device": {"a": "b"}}, "same_device is for frame = 'gravity'"),
        ({"sensors": ("a",), "frame": "gravity", "same_device": {"c": "a"}}, "names 'c', which is none of sensors"),
        ({"sensors": ("a",), "frame": "north"}, "frame"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SignalTargets.model_validate(values)


def test_recipes_of_before_keep_their_fingerprint() -> None:
    """As it was before ``frame`` and ``same_device`` were there."""

    def fingerprint(**more: object) -> str:
        target = {"kind": "signals", "sensors": ["accelerometer"], **more}
        stages = [{"kind": "dense", "targets": [target]}, {"kind": "labels"}]
        return Recipe.model_validate(tiny_values(teacher=None, losses=[], stages=stages)).fingerprint()

    assert fingerprint() == fingerprint(frame="sensor") == fingerprint(same_device={})
    assert fingerprint() != fingerprint(frame="gravity")
    recipe = Recipe.model_validate(
        tiny_values(
            teacher=None, losses=[], stages=[{"kind": "dense", "targets": [{"kind": "signals", "sensors": ["a"]}]},
                                             {"kind": "labels"}],
        )
    )  # fmt: skip
    assert not {"frame", "same_device"} & json.loads(json.dumps(recipe._deciding()))["stages"][0]["targets"][0].keys()


def test_every_reader_with_wearables_has_targets_on_gravitys_axis(
    small_utd: Path, berkeley_tree: Path, mmact_tree: Path, tmp_path: Path
) -> None:
    """Literal values of the miniature files: constant vectors, so upwards is their length and nothing is across."""
    berkeley = BerkeleyMhad(berkeley_tree)
    sensor = berkeley.sensors[0]
    sample = berkeley.samples[0]
    axis = SignalTargets(sensors=(sensor,), frame="gravity")
    values = _of(berkeley, axis, sample, "rgb")
    number = sample.label + 1
    np.testing.assert_allclose(values[:, 0], math.hypot(0.01, number / 100, 9.8), rtol=1e-5)
    np.testing.assert_allclose(values[:, 1], 0, atol=1e-3)
    mmact = MMAct(mmact_tree)
    sample = mmact.samples[0]
    plain = _of(mmact, SignalTargets(sensors=("acc_watch",), smooth_ms=0), sample, "rgb")
    np.testing.assert_allclose(plain[:, 2], -9.5)
    np.testing.assert_allclose(plain[3:7, 0], np.array([3, 4, 5, 6]) * 100 / 30, atol=1e-3)  # x counts the samples
    assert _of(mmact, SignalTargets(sensors=("orientation",)), sample, "rgb").shape[1] == 6
    utd = UtdMhad(small_utd)
    both = SignalTargets(
        sensors=("accelerometer", "gyroscope"), frame="gravity", same_device={"gyroscope": "accelerometer"}
    )
    assert _of(utd, both, utd.samples[0], "depth").shape == (4, 4)
    generated = Synthetic(clips_per_class=2, subjects=2, height_px=32, width_px=40)
    worn = _of(generated, both, generated.samples[0], "nir")
    assert np.median(worn[:, 0]) == pytest.approx(1, abs=0.15)  # g
    assert (worn[:, 1] >= 0).all()


def _of(dataset: object, target: SignalTargets, sample: Sample, modality: str) -> np.ndarray:
    stamps = dataset.open(sample, modality).stamps_ns  # type: ignore[attr-defined]
    return signals_of(target, StudentClips(dataset, (sample,), {sample.id: stamps})).values[sample.id]  # type: ignore[arg-type]


def test_own_recordings_say_the_unit(tmp_path: Path) -> None:
    lines = ["time,x,y,z", *(f"{k * 20},0,9.81,0" for k in range(40))]
    for label in ("wave", "sit"):
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / "1_ir.npy", np.zeros((20, 8, 8), np.uint8))
        (tmp_path / label / "1_acc.csv").write_text("\n".join(lines))
    target = SignalTargets(sensors=("acc",), frame="gravity")
    with pytest.raises(ConfigError, match=r"'gravity' with 'acc' in 1\. Expected an accelerometer in g or m/s\^2"):
        _of(Files(tmp_path), target, Files(tmp_path).samples[0], "ir")
    (tmp_path / "dataset.toml").write_text('[modality.acc]\nunit = "m/s^2"')
    files = Files(tmp_path)
    np.testing.assert_allclose(_of(files, target, files.samples[0], "ir"), np.tile([9.81, 0], (20, 1)), atol=1e-5)
