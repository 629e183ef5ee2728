"""Signals of sensors worn by the generated figure, derived from its joints by inertial physics.

A sensor is attached to a point of a limb and rotates with it. An accelerometer measures the specific force, which is
the point's acceleration minus gravity: 1 g upwards at rest. A gyroscope measures the limb's angular velocity. Both are
expressed on the limb's axes. The joints are sampled four times as densely as the signal, and the result is low-passed
(see ``KERNEL``) before every fourth value is kept, so that nothing above half of the signal's rate is aliased.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from kd_edge.data.dataset import SignalFormat
from kd_edge.data.synthetic import figure as f
from kd_edge.data.synthetic.figure import Array
from kd_edge.types import Float32, Int64

VERSION = 1
"""Version of the signals; part of their content key."""

RATE_HZ = 100.0
GRAVITY = 9.80665
"""Standard gravity, m/s^2."""
_UPWARDS = np.array([0.0, GRAVITY, 0.0])

_DENSE = 4  # joints per sample of the signal
KERNEL = np.hanning(4 * _DENSE + 1)[1:-1] / np.hanning(4 * _DENSE + 1).sum()
"""Low-pass over 40 ms of dense samples: -3 dB at 18 Hz, nothing passes at 50 Hz."""

_MARGIN = len(KERNEL) // 2 + 1  # extra dense samples on each side for the kernel and the derivatives


class Sensor(NamedTuple):
    """A worn sensor.

    Attributes:
        kind: Measured quantity.
        place: Position: the wrist of the acting hand, or the pocket on the right thigh.
        signal_format: Unit, range and rate.
        noise: Standard deviation of every value, in the unit.
        bias: Standard deviation of the constant offset of an axis during a clip, in the unit.
    """

    kind: Literal["acceleration", "rotation"]
    place: Literal["wrist", "pocket"]
    signal_format: SignalFormat
    noise: float
    bias: float


_ACCELERATION = SignalFormat("g", (-8.0, 8.0), RATE_HZ)
_ROTATION = SignalFormat("degree/s", (-1000.0, 1000.0), RATE_HZ)

SENSORS = {
    "accelerometer": Sensor("acceleration", "wrist", _ACCELERATION, 0.012, 0.02),
    "gyroscope": Sensor("rotation", "wrist", _ROTATION, 0.5, 1.0),
    "accelerometer_phone": Sensor("acceleration", "pocket", _ACCELERATION, 0.012, 0.02),
}


def measure(
    sensor: Sensor, joints: Callable[[Array], Array], seconds: float, *, left_handed: bool = False, roll: float = 0.0
) -> tuple[Float32, Int64]:
    """Return the ideal signal of a sensor.

    Args:
        sensor: The sensor.
        joints: Maps (T,) seconds to (T, 20, 3) metres in the body's frame, also shortly before 0 and after the end.
        seconds: Length of the clip.
        left_handed: Whether a watch is on the left wrist.
        roll: Rotation of the sensor about its limb, in radians.

    Returns:
        (T, 3) float32 in the sensor's unit, not clipped to its range; (T,) int64 ns, from 0 to at most ``seconds``.
    """
    count = max(2, int(seconds * RATE_HZ + 1e-6) + 1)
    step = 1 / (RATE_HZ * _DENSE)
    dense = joints(np.arange(-_MARGIN, (count - 1) * _DENSE + 1 + _MARGIN, dtype=np.float64) * step)
    point, axes = _wrist(dense, left_handed) if sensor.place == "wrist" else _pocket(dense)
    axes = _rolled(axes, roll)
    if sensor.kind == "acceleration":
        values = specific_force(point, axes, step) / GRAVITY
    else:
        values = np.degrees(angular_velocity(axes, step))
    smooth = np.stack([np.convolve(axis, KERNEL, mode="valid") for axis in values.T], axis=1)
    stamps = np.round(np.arange(count) * 1e9 / RATE_HZ).astype(np.int64)
    return smooth[::_DENSE].astype(np.float32), stamps


def with_faults(values: Float32, sensor: Sensor, rng: np.random.Generator) -> Float32:
    """Add offset and noise to an ideal signal (T, 3) float32 and clip it to the sensor's range."""
    bias = rng.normal(0, sensor.bias, 3)
    noisy = values + bias + rng.normal(0, sensor.noise, values.shape)
    clipped: Float32 = np.clip(noisy, *sensor.signal_format.value_range).astype(np.float32)
    return clipped


def specific_force(point: Array, axes: Array, step: float) -> Array:
    """Return the acceleration of a point minus gravity, on moving axes.

    Args:
        point: (T, 3) metres, y up.
        axes: (T, 3, 3) unit vectors; row i is axis i.
        step: Seconds between two points.

    Returns:
        (T - 2, 3) m/s^2, without the first and the last time step.
    """
    acceleration = (point[2:] - 2 * point[1:-1] + point[:-2]) / step**2
    force: Array = np.einsum("tad,td->ta", axes[1:-1], acceleration + _UPWARDS)
    return force


def angular_velocity(axes: Array, step: float) -> Array:
    """Return the angular velocity of moving axes, on these axes.

    Args:
        axes: (T, 3, 3) right-handed unit vectors; row i is axis i. They rotate by less than half a turn per step.
        step: Seconds between two steps.

    Returns:
        (T - 2, 3) rad/s, the mean over the steps before and after each time step except the first and the last.
    """
    turn = np.einsum("tad,tbd->tab", axes[:-1], axes[1:])  # (T - 1, 3, 3): columns are the next axes, on the previous
    skew = np.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], -1)
    sine = np.linalg.norm(skew, axis=-1) / 2
    angle = np.arctan2(sine, (np.trace(turn, axis1=1, axis2=2) - 1) / 2)
    per_step = skew * np.where(sine > 1e-12, angle / np.maximum(2 * sine, 1e-12), 0.5)[:, None]
    velocity: Array = (per_step[1:] + per_step[:-1]) / (2 * step)
    return velocity


def _wrist(joints: Array, left_handed: bool) -> tuple[Array, Array]:
    """Watch: 1st axis towards the hand, 2nd normal to the plane of the arm, which is never completely straight."""
    shoulder, elbow, wrist = (
        (f.L_SHOULDER, f.L_ELBOW, f.L_WRIST) if left_handed else (f.R_SHOULDER, f.R_ELBOW, f.R_WRIST)
    )
    along = joints[:, wrist] - joints[:, elbow]
    across = np.cross(joints[:, elbow] - joints[:, shoulder], along)
    return joints[:, wrist], _right_handed(along, across)


def _pocket(joints: Array) -> tuple[Array, Array]:
    """Phone in the right pocket: 1st axis down the thigh, 2nd to the figure's left."""
    hip, knee = joints[:, f.R_HIP], joints[:, f.R_KNEE]
    along = knee - hip
    to_left = joints[:, f.L_HIP] - hip
    across = to_left - along * (np.sum(to_left * along, -1) / np.sum(along * along, -1))[:, None]
    return hip + along * 0.3, _right_handed(along, across)


def _right_handed(along: Array, across: Array) -> Array:
    """(T, 3, 3) unit vectors: two orthogonal vectors, normalised, and their cross product."""
    first, second = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (along, across))
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _rolled(axes: Array, angle: float) -> Array:
    """Rotate axes about the first of them."""
    c, s = np.cos(angle), np.sin(angle)
    rotated: Array = np.einsum("ab,tbd->tad", np.array([[1, 0, 0], [0, c, s], [0, -s, c]]), axes)
    return rotated
