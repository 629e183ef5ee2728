from __future__ import annotations

import numpy as np
import pytest

from kd_edge.data import Sample, SignalFormat
from kd_edge.data.signals.load import load_signals
from kd_edge.train.inputs.draws import Draws
from kd_edge.train.inputs.signals import SignalInput
from kd_edge.train.recipe.augment import SignalJitter
from kd_edge.types import Clip, Float32, Int64

STAMPS = (np.arange(31) * 1e9 / 30).astype(np.int64)  # one second of images


class Worn:
    """One sample with a ramp on an accelerometer; its gyroscope is absent."""

    name = "worn"
    sensors = ("accelerometer", "gyroscope")
    samples = (Sample("a", "1", "front", "1", 0),)

    def signal_format(self, sensor: str) -> SignalFormat:
        return SignalFormat("g", (-8.0, 8.0), 100.0)

    def content_key(self, sample: Sample, modality: str) -> str:
        return modality

    def open(self, sample: Sample, modality: str) -> Clip:
        if modality == "gyroscope":
            from kd_edge.errors import DataError

            raise DataError("no file", "a file", "add it")
        times = np.arange(101, dtype=np.float32) / 100
        return Clip(np.stack([times, 2 * times, -times], axis=1), (times * 1e9).astype(np.int64))


def made(jitter: SignalJitter | None, key: int = 0, stamps: Int64 = STAMPS) -> Float32:
    worn = Worn()
    signals = load_signals(worn, worn.samples, worn.sensors)  # type: ignore[arg-type]  # what loading asks of a data set
    return SignalInput(signals, 10, jitter).of("a", stamps, Draws((key,)))


def test_a_ramp_over_the_clips_time_by_hand() -> None:
    plain = made(None)
    assert plain.shape == (2, 3, 10)
    middles = (np.arange(10) + 0.5) / 10
    np.testing.assert_allclose(plain[0], [middles, 2 * middles, -middles], atol=1e-5)
    assert np.isnan(plain[1]).all()


def test_without_changes_training_sees_what_evaluation_sees() -> None:
    np.testing.assert_array_equal(made(SignalJitter(), key=7), made(None))


def test_a_shift_moves_and_a_stretch_widens_the_span() -> None:
    shifted = {float(made(SignalJitter(shift=0.2), key=k)[0, 0, 4]) for k in range(20)}
    assert len(shifted) == 20
    assert 0.25 <= min(shifted) < 0.4 < 0.5 < max(shifted) <= 0.65  # 0.45 without; at most 0.2 either way
    slopes = [float(np.diff(made(SignalJitter(stretch=0.5), key=k)[0, 0, 4:6])[0]) for k in range(20)]
    assert 0.05 <= min(slopes) < 0.08 < 0.12 < max(slopes) <= 0.15  # 0.1 without


def test_a_sensor_that_barely_covers_its_clip_is_there_whatever_is_drawn() -> None:
    """It recorded one second of a clip of 1.9: moved by half of the clip, it would cover next to nothing."""
    stamps = np.array([0, 1_900_000_000])
    for key in range(30):
        values = made(SignalJitter(shift=0.5, stretch=0.5), key, stamps)
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).all()


def test_gain_is_one_factor_for_all_axes() -> None:
    plain, louder = made(None), made(SignalJitter(gain=0.3), key=3)
    factors = louder[0] / plain[0]
    assert factors == pytest.approx(factors[0, 0], rel=1e-5)
    assert 0.7 <= factors[0, 0] <= 1.3
    assert factors[0, 0] != pytest.approx(1.0, abs=1e-3)


def test_a_turn_keeps_lengths_and_angles() -> None:
    plain, turned = made(None)[0], made(SignalJitter(rotation_degrees=60), key=5)[0]
    np.testing.assert_allclose(np.linalg.norm(turned, axis=0), np.linalg.norm(plain, axis=0), rtol=1e-5)
    np.testing.assert_allclose(turned.T @ turned, plain.T @ plain, rtol=1e-4, atol=1e-6)
    cosine = float((turned * plain).sum() / (plain * plain).sum())
    assert np.cos(np.deg2rad(60)) - 1e-6 <= cosine < 0.9999


def test_noise_is_a_share_of_the_range() -> None:
    noise = np.concatenate([(made(SignalJitter(noise=0.01), key=k) - made(None))[0].ravel() for k in range(40)])
    assert noise.std() == pytest.approx(0.16, rel=0.1)  # 0.01 of 16 g


def test_what_is_drawn_for_one_change_does_not_depend_on_another() -> None:
    alone = made(SignalJitter(gain=0.3), key=9)[0] / made(None)[0]
    both = made(SignalJitter(gain=0.3, noise=1e-6), key=9)[0] / made(None)[0]
    np.testing.assert_allclose(both, alone, rtol=2e-3)
