"""Signals of wearable sensors: decoded once, checked, kept in memory, cut and resampled by their stamps.

A signal is small (a UTD-MHAD recording has 177 samples), so all of them are loaded together. Decoded signals are stored
in one file of the cache folder, named by the SHA-256 of everything that determines its content; without a writable
folder they are decoded every time.

    <cache root>/<data set>-signals-<key>.npz    see ``signal_file``
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.data.dataset import Dataset, Sample, SignalFormat, Wearables
from kd_edge.data.signals.file import Track, map_signals, read_signals, write_signals
from kd_edge.data.signals.resampling import Signal, check_stretch, covered, fault_of, resample
from kd_edge.errors import DataError, did_you_mean
from kd_edge.files import cache_folder
from kd_edge.types import Float32

_FORMAT = 1
"""Version of the file and of the checks; part of the file's key."""

_LEAST_COVER = 0.5
_HOLE_PERIODS = 10  # a hole of more nominal sampling periods without a sample counts as not covered

__all__ = ["Signal", "Signals", "load_signals", "resample", "signals_fingerprint"]

log = logging.getLogger("kd_edge.data")


class Signals:
    """The signals of some samples, in memory; missing signals are listed, not filled in.

    Attributes:
        sensors: Names of the sensors, in the order requested.
        formats: Format of each sensor's signals.
        samples: Samples with at least one sensor, in the order requested.
        skipped: Sample id -> why it has no sensor at all.
        lacking: Sensor -> sample id -> why the signal is missing; includes the skipped samples.
        fingerprint: SHA-256 (hex) of the data set's content and the sensors.
        path: The cache file that contains them; None if they are only in memory.
    """

    def __init__(
        self,
        sensors: Sequence[str],
        formats: Sequence[SignalFormat],
        samples: Sequence[Sample],
        lacking: Mapping[str, Mapping[str, str]],
        fingerprint: str,
        tracks: Sequence[Track],
        path: Path | None = None,
    ) -> None:
        self.sensors, self.formats = tuple(sensors), tuple(formats)
        self.lacking = {sensor: dict(lacking[sensor]) for sensor in self.sensors}
        self.fingerprint, self.path = fingerprint, path
        without_sensor = set.intersection(*(set(reasons) for reasons in self.lacking.values()))
        self.samples = tuple(s for s in samples if s.id not in without_sensor)
        self.skipped = {
            s.id: "; ".join(dict.fromkeys(self.lacking[sensor][s.id] for sensor in self.sensors))
            for s in samples
            if s.id in without_sensor
        }
        self._requested, self._tracks = tuple(samples), tuple(tracks)
        self._indices = {s.id: i for i, s in enumerate(samples)}
        self._holes_ns = [round(_HOLE_PERIODS * 1e9 / f.rate_hz) for f in self.formats]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:  # a loader process maps the file itself instead of receiving its content
            return _mapped, (self.path, self.fingerprint, self.lacking)
        return Signals, (self.sensors, self.formats, self._requested, self.lacking, self.fingerprint, self._tracks)

    def __len__(self) -> int:
        return len(self.samples)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._indices and sample_id not in self.skipped

    def signal(self, sample_id: str, sensor: str) -> Signal | None:
        """Return the whole recording as views, or None if the sample lacks it.

        Raises:
            DataError: The sample or the sensor was not requested.
        """
        if sensor not in self.sensors:
            raise DataError(
                f"no signals of '{sensor}'{did_you_mean(sensor, self.sensors)}",
                f"one of {', '.join(self.sensors)}",
                "correct the sensor's name",
            )
        return self._signal(sample_id, self.sensors.index(sensor))

    def on_clips(self, spans_ns: Mapping[str, tuple[int, int]]) -> Signals:
        """Return these signals without recordings that cover less than half of their sample's clip.

        Holes of more than ten sampling periods do not count as covered.

        Args:
            spans_ns: Sample id -> start and end of its clip; samples without a span are kept as they are.

        Returns:
            Signals with such recordings in ``lacking``, and samples without any other in ``skipped``.
        """
        lacking = {sensor: dict(reasons) for sensor, reasons in self.lacking.items()}
        for k, sensor in enumerate(self.sensors):
            for sample in self._requested:
                signal, span = self._signal(sample.id, k), spans_ns.get(sample.id)
                if signal is None or span is None:
                    continue
                if covered(signal.stamps_ns, *span, self._holes_ns[k]) < _LEAST_COVER:
                    lacking[sensor][sample.id] = f"{sensor} covers less than half of the clip"
        return Signals(self.sensors, self.formats, self._requested, lacking, self.fingerprint, self._tracks, self.path)

    def points(self, sample_id: str, start_ns: int, end_ns: int, points: int) -> Float32:
        """Resample all sensors over a time interval to the same number of points; see ``resample``.

        The coverage of the interval is not checked: training shifts the span of a clip, and sensors must not appear and
        disappear with it. See ``on_clips``.

        Args:
            sample_id: Id of the sample.
            start_ns: Start of the interval on the clock of the sample's images.
            end_ns: End of the interval, >= ``start_ns``.
            points: Number of points, >= 1.

        Returns:
            (sensors, 3, points) float32 in the sensors' units, with the first and last values held beyond the ends of a
            signal; NaN for a sensor that the sample lacks.

        Raises:
            DataError: The sample was not requested, there are no points, or the interval ends before it starts.
        """
        check_stretch(start_ns, end_ns, points)
        resampled = np.full((len(self.sensors), 3, points), np.nan, dtype=np.float32)
        for k in range(len(self.sensors)):
            signal = self._signal(sample_id, k)
            if signal is not None:
                resampled[k] = resample(signal, start_ns, end_ns, points, period=self.formats[k].period)
        return resampled

    def _signal(self, sample_id: str, k: int) -> Signal | None:
        if sample_id not in self._indices:
            raise DataError(f"no signals of sample {sample_id}", "a sample they were loaded for", "load them again")
        index = self._indices[sample_id]
        first, last = self._tracks[k].offsets[index : index + 2].tolist()
        if first == last or sample_id in self.lacking[self.sensors[k]]:
            return None
        return Signal(self._tracks[k].values[first:last], self._tracks[k].stamps_ns[first:last])


def load_signals(
    dataset: Dataset,
    samples: Sequence[Sample],
    sensors: Sequence[str],
    *,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Signals:
    """Load the signals of these samples, decoding them first if they are not in the cache.

    Args:
        dataset: Data set of the signals.
        samples: Samples to load; request the whole data set if several splits will use it.
        sensors: Sensors of the data set.
        root: Folder of the caches; None for ``cache_folder()``. Without a writable folder the signals are decoded every
            time.
        progress: Called with (samples done, total number of samples) while decoding.

    Returns:
        The signals. Recordings that are missing, damaged or do not match their format are listed in ``lacking``.

    Raises:
        DataError: The data set has no sensors, a sensor is unknown or repeated, or no recording is usable.
    """
    formats = _formats(dataset, sensors)
    fingerprint = signals_fingerprint(dataset, samples, sensors)
    folder = cache_folder() if root is None else root
    if folder is None:
        log.warning("no folder for the signals is known: they are decoded every time")
        return _decode(dataset, samples, sensors, formats, fingerprint, progress)
    path = folder / f"{dataset.name}-signals-{fingerprint[:20]}.npz"
    content = read_signals(path, fingerprint)
    if content is not None:
        return _signals(*content, path)
    signals = _decode(dataset, samples, sensors, formats, fingerprint, progress)
    _write(path, signals)
    return signals


def signals_fingerprint(dataset: Dataset, samples: Sequence[Sample], sensors: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of the signals that ``load_signals`` loads or would decode; nothing is decoded.

    Raises:
        DataError: The data set has no sensors, or a sensor is unknown or repeated.
    """
    formats = [
        [sensor, *asdict(f).values(), *([f.period] if f.period else [])]
        for sensor, f in zip(sensors, _formats(dataset, sensors), strict=True)
    ]
    content = [[s.id, s.subject, s.view, s.trial, s.label, *_content_keys(dataset, s, sensors)] for s in samples]
    return hashlib.sha256(json.dumps([_FORMAT, dataset.name, formats, content]).encode()).hexdigest()


def _formats(dataset: Dataset, sensors: Sequence[str]) -> tuple[SignalFormat, ...]:
    if not isinstance(dataset, Wearables):
        raise DataError(
            f"{dataset.name} has no signals of wearable sensors",
            "a data set that has some",
            "choose another data set",
        )
    known = dataset.sensors
    for sensor in sensors:
        if sensor not in known:
            raise DataError(
                f"{dataset.name} has no sensor '{sensor}'{did_you_mean(sensor, known)}",
                f"one of {', '.join(known)}",
                "correct the recipe's sensors",
            )
    if not sensors or len(set(sensors)) < len(sensors):
        raise DataError(
            f"sensors {', '.join(sensors) or 'none'}", f"some of {', '.join(known)}, each once", "correct the sensors"
        )
    return tuple(dataset.signal_format(sensor) for sensor in sensors)


def _content_keys(dataset: Dataset, sample: Sample, sensors: Sequence[str]) -> list[str]:
    keys = []
    for sensor in sensors:
        try:
            keys.append(dataset.content_key(sample, sensor))
        except DataError:
            keys.append("absent")
    return keys


def _decode(
    dataset: Dataset,
    samples: Sequence[Sample],
    sensors: Sequence[str],
    formats: Sequence[SignalFormat],
    fingerprint: str,
    progress: Callable[[int, int], None] | None,
) -> Signals:
    found: dict[str, list[Signal]] = {sensor: [] for sensor in sensors}
    lacking: dict[str, dict[str, str]] = {sensor: {} for sensor in sensors}
    for done, sample in enumerate(samples, 1):
        for sensor, signal_format in zip(sensors, formats, strict=True):
            signal = _recorded(dataset, sample, sensor, signal_format)
            if isinstance(signal, str):
                lacking[sensor][sample.id] = signal
                signal = _EMPTY
            found[sensor].append(signal)
        if progress is not None:
            progress(done, len(samples))
    signals = Signals(sensors, formats, samples, lacking, fingerprint, [_track(found[s]) for s in sensors])
    if not len(signals):
        why = next(iter(signals.skipped.values()), "no sample was requested")
        raise DataError(
            f"no usable signal of {', '.join(sensors)} in {dataset.name} (first: {why})",
            "at least one recording",
            "kd-edge data check, or choose other sensors",
        )
    return signals


_EMPTY = Signal(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))


def _recorded(dataset: Dataset, sample: Sample, sensor: str, signal_format: SignalFormat) -> Signal | str:
    """A valid recording, or what is wrong with it."""
    try:
        clip = dataset.open(sample, sensor)
    except DataError as error:
        return error.found
    fault = fault_of(clip, signal_format)
    if fault is not None:
        return f"{sensor} of {sample.id} {fault}"
    return Signal(np.ascontiguousarray(clip.frames, dtype=np.float32), clip.stamps_ns.astype(np.int64))


def _track(signals: Sequence[Signal]) -> Track:
    offsets = np.cumsum([0, *(len(s.stamps_ns) for s in signals)], dtype=np.int64)
    values = np.concatenate([_EMPTY.values, *(s.values for s in signals)])
    return Track(values, np.concatenate([_EMPTY.stamps_ns, *(s.stamps_ns for s in signals)]), offsets)


def _write(path: Path, signals: Signals) -> None:
    index = {
        "fingerprint": signals.fingerprint,
        "sensors": signals.sensors,
        "formats": [asdict(f) for f in signals.formats],
        "samples": [asdict(s) for s in signals._requested],
        "lacking": signals.lacking,
    }
    try:
        write_signals(path, index, signals._tracks)
        signals.path = path
    except DataError as error:
        log.warning("the signals are decoded every time: %s", error.found)


def _signals(index: dict[str, Any], tracks: Sequence[Track], path: Path) -> Signals:
    """Build the signals from the content of a file."""
    formats = [SignalFormat(**{**f, "value_range": tuple(f["value_range"])}) for f in index["formats"]]
    samples = [Sample(**s) for s in index["samples"]]
    return Signals(index["sensors"], formats, samples, index["lacking"], index["fingerprint"], tracks, path)


def _mapped(path: Path, fingerprint: str, lacking: dict[str, dict[str, str]]) -> Signals:
    """Map the signals of a file in another process, with the missing recordings found by its parent."""
    index, tracks = map_signals(path, fingerprint)
    return _signals(index | {"lacking": lacking}, tracks, path)
