from __future__ import annotations

import logging
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data.dataset import Sample, SignalFormat
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.data.signals.file import Track
from kd_edge.data.signals.load import Signal, Signals, load_signals, resample, signals_fingerprint
from kd_edge.errors import DataError
from kd_edge.types import Clip

S = 1_000_000_000
FORMATS = {
    "accelerometer": SignalFormat("g", (-8.0, 8.0), 50.0),
    "gyroscope": SignalFormat("degree/s", (-1e3, 1e3), 50.0),
}


def ramp(seconds: float = 2.0, rate_hz: float = 50.0, start: float = 0.0) -> Clip:
    """Values t, 2 t, -t over the time t in seconds."""
    times = start + np.arange(round(seconds * rate_hz) + 1) / rate_hz
    return Clip(np.stack([times, 2 * times, -times], axis=1).astype(np.float32), np.round(times * S).astype(np.int64))


class InMemory:
    """Recordings by sample id and sensor."""

    name = "in_memory"
    sensors = tuple(FORMATS)
    modalities = sensors

    def __init__(self, clips: dict[tuple[str, str], Clip]) -> None:
        self.clips = clips
        names = dict.fromkeys(i for i, _ in clips)
        self.samples = tuple(Sample(name, "1", "front", "1", 0) for name in names)
        self.opened = 0

    def signal_format(self, sensor: str) -> SignalFormat:
        return FORMATS[sensor]

    def open(self, sample: Sample, modality: str) -> Clip:
        self.opened += 1
        if (sample.id, modality) not in self.clips:
            raise DataError(f"no file {sample.id}.{modality}", "it", "fetch it")
        return self.clips[sample.id, modality]

    def content_key(self, sample: Sample, modality: str) -> str:
        if (sample.id, modality) not in self.clips:
            raise DataError("absent", "", "")
        return f"{self.clips[sample.id, modality].frames.sum()}"


@pytest.fixture
def dataset() -> Any:
    """Two samples; the second lacks the gyroscope."""
    both: dict[tuple[str, str], Clip] = {("one", sensor): ramp(2.0) for sensor in FORMATS}
    return InMemory({**both, ("two", "accelerometer"): ramp(1.0, start=0.5)})


def load(dataset: Any, root: Path, **kwargs: Any) -> Any:
    return load_signals(dataset, dataset.samples, ["accelerometer", "gyroscope"], root=root, **kwargs)


def test_what_is_there_and_what_is_lacking(dataset: Any, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset.samples = (*dataset.samples, Sample("three", "2", "front", "1", 0))
    signals = load(dataset, tmp_path, progress=lambda *at: calls.append(at))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [s.id for s in signals.samples] == ["one", "two"]
    assert len(signals) == 2
    assert ["one" in signals, "three" in signals, "four" in signals] == [True, False, False]
    assert signals.formats == tuple(FORMATS.values())
    assert signals.skipped == {"three": "no file three.accelerometer; no file three.gyroscope"}
    assert signals.lacking["accelerometer"] == {"three": "no file three.accelerometer"}
    assert list(signals.lacking["gyroscope"]) == ["two", "three"]
    signal = signals.signal("two", "accelerometer")
    assert np.array_equal(signal.values, dataset.clips["two", "accelerometer"].frames)
    assert np.array_equal(signal.stamps_ns, dataset.clips["two", "accelerometer"].stamps_ns)
    assert signals.signal("two", "gyroscope") is None
    assert signals.signal("three", "gyroscope") is None
    with pytest.raises(DataError, match="no signals of sample four"):
        signals.signal("four", "gyroscope")
    with pytest.raises(DataError, match=r"no signals of 'gyro' \(did you mean|no signals of 'gyro'"):
        signals.signal("one", "gyro")


def test_points_are_cut_by_stamps(dataset: Any, tmp_path: Path) -> None:
    signals = load(dataset, tmp_path)
    points = signals.points("one", S // 2, 3 * S // 2, 4)
    assert points.shape == (2, 3, 4)
    assert points.dtype == np.float32
    middles = np.array([0.625, 0.875, 1.125, 1.375])  # of a straight line, each part's mean is its middle
    assert points[0] == pytest.approx(np.stack([middles, 2 * middles, -middles]), abs=1e-6)
    assert np.array_equal(points[1], points[0])
    lacking = signals.points("two", S // 2, 3 * S // 2, 4)
    assert lacking[0] == pytest.approx(points[0], abs=1e-6)
    assert np.isnan(lacking[1]).all()
    with pytest.raises(DataError, match="no signals of sample four"):
        signals.points("four", 0, S, 4)
    with pytest.raises(DataError, match=r"from 5 ns to 4 ns"):
        signals.points("one", 5, 4, 2)
    with pytest.raises(DataError, match="0 points"):
        signals.points("one", 0, S, 0)
    with pytest.raises(DataError, match="without samples"):
        resample(Signal(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)), 0, S, 2)


@pytest.mark.parametrize(
    ("start", "end", "there"),
    [(0.0, 2.0, True), (0.0, 1.01, True), (0.0, 0.99, False), (1.0, 2.0, True), (1.01, 2.0, False), (1.6, 2.0, False),
     (0.5, 0.5, True), (1.5, 1.5, True), (0.4, 0.4, False)],
)  # fmt: skip
def test_a_sensor_that_covers_less_than_half_is_lacking(
    dataset: Any, tmp_path: Path, start: float, end: float, there: bool
) -> None:
    """The accelerometer of sample two recorded from 0.5 s to 1.5 s."""
    span = round(start * S), round(end * S)
    whole = load(dataset, tmp_path)
    signals = whole.on_clips({"two": span})
    points = signals.points("two", *span, 8)
    assert np.isfinite(points[0]).all() == there
    assert np.isnan(points[0]).all() != there
    assert np.isnan(points[1]).all()
    assert ("two" in signals) == there
    assert len(signals) == 1 + there
    assert (signals.signal("two", "accelerometer") is not None) == there
    reason = "accelerometer covers less than half of the clip"
    assert signals.lacking["accelerometer"] == ({} if there else {"two": reason})
    assert signals.skipped == ({} if there else {"two": f"{reason}; no file two.gyroscope"})
    assert np.isfinite(signals.points("one", *span, 8)).all()  # no clip was given for it
    assert whole.lacking["accelerometer"] == {}
    assert load(dataset, tmp_path).lacking == whole.lacking  # the cache does not know of clips


def test_a_span_that_moves_away_is_held_and_never_lacking(dataset: Any, tmp_path: Path) -> None:
    """Sample two's clip is its accelerometer's time; points are asked for where less and less of it is left."""
    signals = load(dataset, tmp_path).on_clips({"two": (S // 2, 3 * S // 2)})
    # the last quarter from -0.4 s: 0.5 held for 0.15 s, then up to 0.6 for 0.1 s
    for start, first, last in [(0.0, 0.5, 0.875), (-0.4, 0.5, 0.52), (1.2, 1.325, 1.5), (7.0, 1.5, 1.5)]:
        points = signals.points("two", round(start * S), round((start + 1) * S), 4)[0, 0]
        assert points[0] == pytest.approx(first, abs=1e-5)
        assert points[-1] == pytest.approx(last, abs=1e-5)


def test_a_hole_is_not_covered(tmp_path: Path) -> None:
    """From 0.3 s to 1.7 s the sensor was silent: more than ten periods of 20 ms, and over half of two seconds."""
    whole = ramp(2.0)
    times = whole.stamps_ns / S
    kept = (times <= 0.3) | (times >= 1.7)
    clip = Clip(whole.frames[kept], whole.stamps_ns[kept])
    kept = (times <= 1.0) | (times >= 1.19)
    short = Clip(whole.frames[kept], whole.stamps_ns[kept])
    signals = load(InMemory({("one", "accelerometer"): clip, ("one", "gyroscope"): short}), tmp_path)
    silent, dropped = signals.on_clips({"one": (0, 2 * S)}).points("one", 0, 2 * S, 4)
    assert np.isnan(silent).all()
    assert dropped[0] == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=1e-6)
    assert np.isfinite(signals.on_clips({"one": (0, S // 2)}).points("one", 0, S // 2, 4)[0]).all()


def test_fewer_samples_than_points_are_interpolated() -> None:
    signal = Signal(np.array([[0, 1, 5], [4, 1, 5], [0, 3, 5]], np.float32), np.array([0, 4, 8]) * S)
    # the middles of eight parts of a second: 0.5, 1.5, ...; linear between 0 -> 4 -> 0 and 1 -> 1 -> 3
    up = [0.5, 1.5, 2.5, 3.5]
    assert resample(signal, 0, 8 * S, 8).tolist() == [[*up, *up[::-1]], [1] * 4 + [1.25, 1.75, 2.25, 2.75], [5] * 8]
    assert resample(signal, -2 * S, 0, 2).tolist() == [[0, 0], [1, 1], [5, 5]]  # held outside
    assert resample(signal, 8 * S, 80 * S, 2).tolist() == [[0, 0], [3, 3], [5, 5]]
    assert resample(signal, S, S, 3).tolist() == [[1] * 3, [1] * 3, [5] * 3]  # an instant
    assert resample(Signal(signal.values[:1], signal.stamps_ns[:1]), 0, S, 2).tolist() == [[0, 0], [1, 1], [5, 5]]


def test_more_samples_than_points_are_averaged_by_time() -> None:
    """By hand: the integral of the lines between samples that are not evenly spaced."""
    signal = Signal(np.array([[0], [2], [2], [8]], np.float32).repeat(3, axis=1), np.array([0, 1, 3, 4]) * S)
    # first half: 0 -> 2 in a second, then 2; second half: 2 for a second, then 2 -> 8
    assert resample(signal, 0, 4 * S, 2)[0].tolist() == [1.5, 3.5]
    assert resample(signal, 0, 4 * S, 1)[0].tolist() == [2.5]
    # a part ends between samples: from 0 to 1.6 s: (1 + 0.6 * 2) / 1.6
    assert resample(signal, 0, round(3.2 * S), 2)[0, 0] == pytest.approx(2.2 / 1.6)


def test_averages_do_not_alias() -> None:
    """A tone of 40 Hz, taken at ten points a second, would come out as a constant 1."""
    times = np.arange(2001) / 1000
    tone = np.cos(2 * np.pi * 40 * (times - 0.05)).astype(np.float32)[:, None].repeat(3, axis=1)
    points = resample(Signal(tone, np.round(times * S).astype(np.int64)), 0, 2 * S, 20)
    assert np.abs(points).max() < 0.01


def test_long_recordings_and_late_clocks_lose_nothing() -> None:
    """Ten hours after the start, far outside of what float32 seconds can tell."""
    start = 36_000 * S
    clip = ramp(2.0)
    signal = Signal(clip.frames, clip.stamps_ns + start)
    assert resample(signal, start, start + 2 * S, 4)[0] == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=1e-6)
    huge = Signal(np.full((5, 3), 3e38, np.float32), np.arange(5) * S)
    assert resample(huge, 0, 4 * S, 3) == pytest.approx(np.full((3, 3), np.float32(3e38)), rel=1e-6)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: replace(c, frames=np.where(c.frames > 1, np.nan, c.frames)), "not finite"),
        (lambda c: replace(c, frames=np.where(c.frames > 1, np.inf, c.frames)), "not finite"),
        (lambda c: replace(c, frames=c.frames.astype(np.float64) * 1e300), "not finite"),
        (lambda c: Clip(c.frames[:1], c.stamps_ns[:1]), "1 samples, at least 2"),
        (lambda c: replace(c, frames=c.frames[:, :2]), r"\(101, 2\).*not \(T, 3\)"),
        (lambda c: replace(c, frames=c.frames[:50]), r"\(50, 3\) with \(101,\)"),
        (lambda c: replace(c, stamps_ns=c.stamps_ns[::-1]), "do not increase"),
        (lambda c: replace(c, stamps_ns=c.stamps_ns // S), "do not increase"),
        (lambda c: replace(c, stamps_ns=c.stamps_ns * 3), r"16\.7 samples per second instead of 50"),
        (lambda c: replace(c, stamps_ns=c.stamps_ns // 3), "150 samples per second instead of 50"),
    ],
)
def test_a_faulty_recording_is_lacking_with_its_reason(
    dataset: Any, tmp_path: Path, damage: Callable[[Clip], Clip], reason: str
) -> None:
    dataset.clips["one", "gyroscope"] = damage(dataset.clips["one", "gyroscope"])
    signals = load(dataset, tmp_path)
    assert signals.signal("one", "gyroscope") is None
    with pytest.raises(AssertionError, match=rf"gyroscope of one has.*{reason}"):
        raise AssertionError(signals.lacking["gyroscope"]["one"])
    assert signals.signal("one", "accelerometer") is not None


@pytest.mark.parametrize("factor", [0.55, 1.9])
def test_a_rate_within_a_factor_of_two_is_usable(dataset: Any, tmp_path: Path, factor: float) -> None:
    clip = ramp(2.0, 50 * factor)
    dataset.clips["two", "gyroscope"] = clip
    assert load(dataset, tmp_path).signal("two", "gyroscope") is not None


def test_the_cache_is_read_again_and_survives_damage(dataset: Any, tmp_path: Path) -> None:
    first = load(dataset, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == f"in_memory-signals-{first.fingerprint[:20]}.npz"
    opened = dataset.opened
    again = load(dataset, tmp_path)
    assert dataset.opened == opened
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for turn in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if turn % 2 else whole)
        if not turn % 2:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        again = load(dataset, tmp_path)
        assert (again.sensors, again.samples, again.lacking) == (first.sensors, first.samples, first.lacking)
        assert again.formats == first.formats
        assert np.array_equal(again.points("one", 0, S, 16), first.points("one", 0, S, 16))
        assert np.isnan(again.points("two", 0, 2 * S, 16)[1]).all()
    assert list(tmp_path.iterdir()) == [path]


def test_the_fingerprint_follows_content_samples_and_sensors(dataset: Any, tmp_path: Path) -> None:
    sensors = ["accelerometer", "gyroscope"]
    keys = [signals_fingerprint(dataset, dataset.samples, sensors)]
    assert keys[0] == load(dataset, tmp_path).fingerprint
    opened = dataset.opened
    keys.append(signals_fingerprint(dataset, dataset.samples[:1], sensors))
    keys.append(signals_fingerprint(dataset, dataset.samples, sensors[:1]))
    keys.append(signals_fingerprint(dataset, dataset.samples, sensors[::-1]))
    dataset.clips["two", "gyroscope"] = ramp(1.0)
    keys.append(signals_fingerprint(dataset, dataset.samples, sensors))
    assert len(set(keys)) == 5
    assert dataset.opened == opened
    assert load(dataset, tmp_path).signal("two", "gyroscope") is not None  # not the cached one


@pytest.mark.slow
def test_a_loader_process_maps_the_file_instead_of_receiving_it(tmp_path: Path) -> None:
    clips = {(f"{k}", sensor): ramp(2.0 + k / 10) for k in range(40) for sensor in FORMATS}
    del clips["7", "gyroscope"]
    recordings = InMemory(clips)
    for loaded in (load(recordings, tmp_path), load(recordings, tmp_path)):  # decoded, and read from the cache
        signals = loaded.on_clips({"3": (0, 9 * S), "7": (0, S)})
        sent = pickle.dumps(signals)
        assert len(sent) < 1500  # their values and stamps are over 200 000 bytes
        again = pickle.loads(sent)
        assert isinstance(again._tracks[0].values.base, np.memmap)
        assert isinstance(again._tracks[1].stamps_ns.base, np.memmap)
        assert (again.sensors, again.formats, again.samples) == (signals.sensors, signals.formats, signals.samples)
        assert (again.lacking, again.skipped) == (signals.lacking, signals.skipped)
        assert again.skipped.keys() == {"3"}
        for sample_id in ("0", "7", "39"):
            assert np.array_equal(
                again.points(sample_id, 0, S, 16), signals.points(sample_id, 0, S, 16), equal_nan=True
            )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answer = pool.apply(signals.points, ("7", 0, S, 16))
    assert np.array_equal(answer, signals.points("7", 0, S, 16), equal_nan=True)
    signals.path.unlink()
    with pytest.raises(DataError, match=r"in_memory-signals-.*were removed or changed"):
        pickle.loads(sent)


def test_signals_without_a_file_are_sent_whole() -> None:
    track = Track(ramp(1.0).frames, ramp(1.0).stamps_ns, np.array([0, 51, 51]))
    samples = [Sample(name, "1", "front", "1", 0) for name in ("one", "two")]
    lacking = {"accelerometer": {"two": "no file"}}
    signals = Signals(["accelerometer"], [FORMATS["accelerometer"]], samples, lacking, "f" * 64, [track])
    again = pickle.loads(pickle.dumps(signals))
    assert again.path is None
    assert (again.samples, again.skipped, again.fingerprint) == (signals.samples, {"two": "no file"}, "f" * 64)
    assert np.array_equal(again.points("one", 0, S, 8), signals.points("one", 0, S, 8))


def test_a_cache_that_cannot_be_written_costs_time_only(
    dataset: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "kd_edge.data"):
        assert len(load(dataset, tmp_path / "file")) == 2
    assert "decoded every time" in caplog.text


@pytest.mark.usefixtures("no_home")
def test_without_a_home_they_are_decoded_and_not_kept(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kd_edge.data"):
        assert len(load(dataset, None)) == 2
    assert caplog.messages == ["no folder for the signals is known: they are decoded every time"]


def test_nothing_usable_and_wrong_names(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sensor 'gyroscop' \(did you mean 'gyroscope'\?\)"):
        load_signals(dataset, dataset.samples, ["gyroscop"], root=tmp_path)
    with pytest.raises(DataError, match="sensors none"):
        load_signals(dataset, dataset.samples, [], root=tmp_path)
    with pytest.raises(DataError, match="each once"):
        signals_fingerprint(dataset, dataset.samples, ["gyroscope", "gyroscope"])
    with pytest.raises(DataError, match=r"no usable signal of gyroscope.*no file two\.gyroscope"):
        load_signals(dataset, dataset.samples[1:], ["gyroscope"], root=tmp_path)
    with pytest.raises(DataError, match="no sample was requested"):
        load_signals(dataset, [], ["gyroscope"], root=tmp_path)
    with pytest.raises(DataError, match="in_images has no signals"):
        load_signals(type("Images", (), {"name": "in_images"})(), [], ["gyroscope"], root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_real_data_set(utd_root: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(utd_root)
    samples = dataset.samples[:: max(1, len(dataset.samples) // 60)]
    signals = load_signals(dataset, samples, dataset.sensors, root=tmp_path)
    assert len(signals) == len(samples)
    assert signals.lacking == {"accelerometer": {}, "gyroscope": {}}
    clip = dataset.open(samples[3], "gyroscope")
    points = signals.points(samples[3].id, 0, int(clip.stamps_ns[-1]), 64)
    mean = np.trapezoid(clip.frames.astype(np.float64), clip.stamps_ns / S, axis=0) / clip.seconds
    assert points[1].mean(axis=-1) == pytest.approx(mean, abs=1e-3)
