"""What wearable sensors measure at the moments of a clip's frames, on their own axes or on gravity's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kd_edge.data import Dataset
from kd_edge.data.dataset import Wearables
from kd_edge.data.signals.load import Signals, load_signals
from kd_edge.errors import ConfigError
from kd_edge.train.inputs.targets.base import HELD_NS, Found, Group, StudentClips
from kd_edge.train.recipe.student_stages import SignalTargets
from kd_edge.types import Int64

GRAVITY_MS = 1000.0
"""Length of the moving average of an accelerometer that is taken for gravity."""

_ACCELERATIONS = ("g", "m/s^2")
_FALLING = 0.1  # of the usual acceleration: of less than that nobody can tell where it points
_FINEST = 50  # points for a frame, where stamps are so uneven that their median step is no period

_Float64 = npt.NDArray[np.float64]


def signals_of(target: SignalTargets, clips: StudentClips) -> Found:
    """Every clip's signals, smoothed.

    Of a sensor these are its three axes, of an angle, which comes round after a full turn, cosine and sine of each; on
    gravity's axis two numbers, see ``along_gravity``. NaN where a clip lacks a sensor, and where it has not begun to
    measure or has ended.

    Raises:
        ConfigError: Gravity's axis for a sensor without an accelerometer of the same device.
    """
    check_signals(target, clips.dataset)
    stamps = {s.id: clips.stamps_ns[s.id] for s in clips.samples}
    spans = {sample_id: (int(when[0]), int(when[-1])) for sample_id, when in stamps.items()}
    signals = load_signals(clips.dataset, clips.samples, target.modalities).on_clips(spans)
    found = {
        sample_id: np.concatenate([_of_sensor(k, target, signals, sample_id, when) for k in range(len(target.sensors))])
        .astype(np.float32)
        .T
        for sample_id, when in stamps.items()
    }
    groups, first = [], 0
    for k, sensor in enumerate(target.sensors):
        count = 2 if target.frame == "gravity" else 6 if signals.formats[k].period else 3
        groups.append(Group(sensor, first, count, False, target.weight))
        first += count
    return Found(tuple(groups), found, {sensor: dict(why) for sensor, why in signals.lacking.items()})


def check_signals(target: SignalTargets, dataset: Dataset) -> None:
    """Refuse gravity's axis for a sensor that no accelerometer of the data set goes with.

    Raises:
        ConfigError: Names the sensor.
    """
    if target.frame == "sensor" or not isinstance(dataset, Wearables):
        return
    for sensor in target.sensors:
        accelerometer = target.accelerometer_of(sensor)
        unit = dataset.signal_format(accelerometer).unit
        if unit not in _ACCELERATIONS:
            whose = "" if accelerometer == sensor else f", which '{sensor}' is said to be worn with"
            raise ConfigError(
                f"frame = 'gravity' with '{accelerometer}' in {unit}{whose}",
                f"an accelerometer in {' or '.join(_ACCELERATIONS)}, which feels gravity",
                "name the one of the same device in same_device, or set frame = 'sensor'",
            )


def along_gravity(values: _Float64, accelerations: _Float64, width: int) -> _Float64:
    """Vectors by gravity: what of them is upwards, and how much is across, as nobody knows in which direction.

    Upwards is where the moving average of the accelerometer points, which measures the acceleration minus gravity: at
    rest 1 g upwards. Turning the device changes nothing.

    Args:
        values: (3, N) on a device's axes.
        accelerations: (3, N) of its accelerometer.
        width: Length of the moving average, in moments.

    Returns:
        (2, N): upwards, and the length of the rest, >= 0; NaN where upwards is not known.
    """
    mean = _smooth(accelerations, width)
    length = np.sqrt((mean**2).sum(axis=0))
    usual = float(np.median(np.sqrt((accelerations**2).sum(axis=0))))
    is_known = (length > 0) & (length >= _FALLING * usual)
    upwards = np.where(is_known, mean / np.where(is_known, length, 1), np.nan)  # (3, N) of length 1
    up = (values * upwards).sum(axis=0)
    across = np.sqrt(((values - up * upwards) ** 2).sum(axis=0))
    return np.stack([up, across])


def _of_sensor(k: int, target: SignalTargets, signals: Signals, sample_id: str, stamps_ns: Int64) -> _Float64:
    """(3, N), (6, N) or (2, N) of one sensor at the frames' moments."""
    period_ms = _period_ns(stamps_ns) / 1e6
    values, is_known = _at_frames(signals, sample_id, k, stamps_ns)
    if target.frame == "gravity":
        j = signals.sensors.index(target.accelerometer_of(target.sensors[k]))
        accelerations, also = _at_frames(signals, sample_id, j, stamps_ns)
        values, is_known = along_gravity(values, accelerations, max(1, round(GRAVITY_MS / period_ms))), is_known & also
    elif period := signals.formats[k].period:
        angles = 2 * np.pi / period * values
        values = np.concatenate([np.cos(angles), np.sin(angles)])
    smooth = _smooth(values, max(1, round(target.smooth_ms / period_ms)))
    result: _Float64 = np.where(is_known, smooth, np.nan)
    return result


def _at_frames(signals: Signals, sample_id: str, k: int, stamps_ns: Int64) -> tuple[_Float64, npt.NDArray[np.bool_]]:
    """(3, N) means over a frame's period about each frame's moment, and (N,) whether the sensor measured then."""
    signal = signals.signal(sample_id, signals.sensors[k])
    if signal is None:
        return np.full((3, len(stamps_ns)), np.nan), np.zeros(len(stamps_ns), np.bool_)
    start, end, period = int(stamps_ns[0]), int(stamps_ns[-1]), _period_ns(stamps_ns)
    count = min(round((end - start) / period) + 1, _FINEST * len(stamps_ns))
    half = round(period / 2)
    means = signals.points(sample_id, start - half, end + half, count)[k].astype(np.float64)  # (3, count)
    centres = start - half + (np.arange(count) + 0.5) * (end - start + 2 * half) / count
    values = np.stack([np.interp(stamps_ns, centres, axis) for axis in means])
    is_known = (stamps_ns >= signal.stamps_ns[0] - HELD_NS) & (stamps_ns <= signal.stamps_ns[-1] + HELD_NS)
    return values, is_known


def _period_ns(stamps_ns: Int64) -> float:
    """Usual time between two frames."""
    return float(np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else 1e9 / 30


def _smooth(series: _Float64, width: int) -> _Float64:
    """Moving average over time of (M, N), the ends held."""
    if width < 2:
        return series
    padded = np.pad(series, ((0, 0), (width // 2, width - 1 - width // 2)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    result: _Float64 = (sums[:, width:] - sums[:, :-width]) / width
    return result
