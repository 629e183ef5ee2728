"""Signals of wearable sensors: decoded once, checked, kept in memory, cut and resampled by their stamps.

A signal is small (an UTD-MHAD recording has 177 samples), so all of them are loaded at once. What was decoded stays in
one file of the cache folder, named by the SHA-256 of everything that decides its content; without a writable folder
they are decoded anew every time.

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
_HOLE_PERIODS = 10  # nominal sampling periods without a sample: such a hole counts as not covered

__all__ = ["Signal", "Signals", "load_signals", "resample", "signals_fingerprint"]

log = logging.getLogger("kd_edge.data")


class Signals:
    """The signals of some samples, in memory; what a sample lacks is told, not filled in.

    Attributes:
        sensors: Names of the sensors, in the order asked for.
        formats: Format of each sensor's signals.
        samples: Samples with at least one sensor, in the order asked for.
        skipped: Sample id -> why it has no sensor at all.
        lacking: Sensor -> sample id -> why it is not there; the skipped samples among them.
        fingerprint: SHA-256 (hex) of the data set's content and the sensors.
        path: The file of the cache that has them; None where they are in memory alone.
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
        nowhere = set.intersection(*(set(reasons) for reasons in self.lacking.values()))
        self.samples = tuple(s for s in samples if s.id not in nowhere)
        self.skipped = {
            s.id: "; ".join(dict.fromkeys(self.lacking[sensor][s.id] for sensor in self.sensors))
            for s in samples
            if s.id in nowhere
        }
        self._asked, self._tracks = tuple(samples), tuple(tracks)
        self._places = {s.id: i for i, s in enumerate(samples)}
        self._holes_ns = [round(_HOLE_PERIODS * 1e9 / f.rate_hz) for f in self.formats]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:  # a loader process maps the file itself instead of receiving its content
            return _mapped, (self.path, self.fingerprint, self.lacking)
        return Signals, (self.sensors, self.formats, self._asked, self.lacking, self.fingerprint, self._tracks)

    def __len__(self) -> int:
        return len(self.samples)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places and sample_id not in self.skipped

    def signal(self, sample_id: str, sensor: str) -> Signal | None:
        """The whole recording (views, nothing is copied), or None where the sample lacks it.

        Raises:
            DataError: A sample or a sensor that was not asked for.
        """
        if sensor not in self.sensors:
            raise DataError(
                f"no signals of '{sensor}'{did_you_mean(sensor, self.sensors)}",
                f"one of {', '.join(self.sensors)}",
                "correct the sensor's name",
            )
        return self._signal(sample_id, self.sensors.index(sensor))

    def on_clips(self, spans_ns: Mapping[str, tuple[int, int]]) -> Signals:
        """These signals without recordings that cover less than half of their sample's clip.

        Ten sampling periods without a sample are not covered.

        Args:
            spans_ns: Sample id -> start and end of its clip; samples that have none are left as they are.

        Returns:
            Signals that name such recordings in ``lacking``, and samples that have no other in ``skipped``.
        """
        lacking = {sensor: dict(reasons) for sensor, reasons in self.lacking.items()}
        for k, sensor in enumerate(self.sensors):
            for sample in self._asked:
                signal, span = self._signal(sample.id, k), spans_ns.get(sample.id)
                if signal is None or span is None:
                    continue
                if covered(signal.stamps_ns, *span, self._holes_ns[k]) < _LEAST_COVER:
                    lacking[sensor][sample.id] = f"{sensor} covers less than half of the clip"
        return Signals(self.sensors, self.formats, self._asked, lacking, self.fingerprint, self._tracks, self.path)

    def points(self, sample_id: str, start_ns: int, end_ns: int, points: int) -> Float32:
        """All sensors over a stretch of time, each with the same number of points; see ``resample``.

        How much of the stretch a signal covers is not asked: a clip's span is moved in training, and a sensor must not
        come and go with it. See ``on_clips``.

        Args:
            sample_id: Id of the sample.
            start_ns: Start of the stretch on the time of the sample's images.
            end_ns: End of the stretch, >= ``start_ns``.
            points: Number of points, >= 1.

        Returns:
            (sensors, 3, points) float32 in the sensors' units, the ends held beyond a signal's own; NaN for a sensor
            that the sample lacks.

        Raises:
            DataError: A sample that was not asked for, no points, or a stretch that ends before it starts.
        """
        check_stretch(start_ns, end_ns, points)
        resampled = np.full((len(self.sensors), 3, points), np.nan, dtype=np.float32)
        for k in range(len(self.sensors)):
            signal = self._signal(sample_id, k)
            if signal is not None:
                resampled[k] = resample(signal, start_ns, end_ns, points, period=self.formats[k].period)
        return resampled

    def _signal(self, sample_id: str, k: int) -> Signal | None:
        if sample_id not in self._places:
            raise DataError(f"no signals of sample {sample_id}", "a sample they were loaded for", "load them anew")
        place = self._places[sample_id]
        first, last = self._tracks[k].offsets[place : place + 2].tolist()
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
    """Load the signals of these samples, decoded first where the cache does not have them yet.

    Args:
        dataset: Data set that the signals come from.
        samples: Which samples; ask for the whole data set when several splits will use it.
        sensors: Which of the data set's sensors.
        root: Folder of the caches; None takes ``cache_folder()``. One that cannot be written, or none,
            costs time, not the run.
        progress: Called with (samples done, samples in all) while decoding.

    Returns:
        The signals. A recording that is absent, damaged or not what its format says is named in ``lacking``.

    Raises:
        DataError: A data set without sensors, an unknown or repeated one, or not one usable recording.
    """
    formats = _formats(dataset, sensors)
    fingerprint = signals_fingerprint(dataset, samples, sensors)
    folder = cache_folder() if root is None else root
    if folder is None:
        log.warning("no folder for the signals is known: they are decoded anew every time")
        return _decode(dataset, samples, sensors, formats, fingerprint, progress)
    path = folder / f"{dataset.name}-signals-{fingerprint[:20]}.npz"
    content = read_signals(path, fingerprint)
    if content is not None:
        return _signals(*content, path)
    signals = _decode(dataset, samples, sensors, formats, fingerprint, progress)
    _write(path, signals)
    return signals


def signals_fingerprint(dataset: Dataset, samples: Sequence[Sample], sensors: Sequence[str]) -> str:
    """SHA-256 (hex) that the signals have or would have, see ``load_signals``; nothing is decoded.

    Raises:
        DataError: A data set without sensors, or an unknown or repeated one.
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
            f"{dataset.name} has no signals of wearable sensors", "a data set that has", "choose another data set"
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
                signal = _NOTHING
            found[sensor].append(signal)
        if progress is not None:
            progress(done, len(samples))
    signals = Signals(sensors, formats, samples, lacking, fingerprint, [_track(found[s]) for s in sensors])
    if not len(signals):
        why = next(iter(signals.skipped.values()), "no sample was asked for")
        raise DataError(
            f"no usable signal of {', '.join(sensors)} in {dataset.name} (first: {why})",
            "at least one recording",
            "kd-edge data check, or choose other sensors",
        )
    return signals


_NOTHING = Signal(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))


def _recorded(dataset: Dataset, sample: Sample, sensor: str, signal_format: SignalFormat) -> Signal | str:
    """A sound recording, or what is wrong with it."""
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
    values = np.concatenate([_NOTHING.values, *(s.values for s in signals)])
    return Track(values, np.concatenate([_NOTHING.stamps_ns, *(s.stamps_ns for s in signals)]), offsets)


def _write(path: Path, signals: Signals) -> None:
    index = {
        "fingerprint": signals.fingerprint,
        "sensors": signals.sensors,
        "formats": [asdict(f) for f in signals.formats],
        "samples": [asdict(s) for s in signals._asked],
        "lacking": signals.lacking,
    }
    try:
        write_signals(path, index, signals._tracks)
        signals.path = path
    except DataError as error:
        log.warning("the signals are decoded anew every time: %s", error.found)


def _signals(index: dict[str, Any], tracks: Sequence[Track], path: Path) -> Signals:
    """The signals of a file."""
    formats = [SignalFormat(**{**f, "value_range": tuple(f["value_range"])}) for f in index["formats"]]
    samples = [Sample(**s) for s in index["samples"]]
    return Signals(index["sensors"], formats, samples, index["lacking"], index["fingerprint"], tracks, path)


def _mapped(path: Path, fingerprint: str, lacking: dict[str, dict[str, str]]) -> Signals:
    """The signals of a file in another process, which lacks what its parent found lacking."""
    index, tracks = map_signals(path, fingerprint)
    return _signals(index | {"lacking": lacking}, tracks, path)
