"""An articulated figure: body proportions, and joints from postures and hand targets by inverse kinematics.

The body's frame: x to the figure's left, y up, z forward; metres; the origin on the floor between the feet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

(HEAD, SHOULDERS, SPINE, HIPS, L_SHOULDER, L_ELBOW, L_WRIST, L_HAND, R_SHOULDER, R_ELBOW, R_WRIST, R_HAND,
 L_HIP, L_KNEE, L_ANKLE, L_FOOT, R_HIP, R_KNEE, R_ANKLE, R_FOOT) = range(20)  # fmt: skip

_MIRRORED = [HEAD, SHOULDERS, SPINE, HIPS, *range(8, 12), *range(4, 8), *range(16, 20), *range(12, 16)]


@dataclass(frozen=True, slots=True)
class Body:
    """Proportions of a person, metres."""

    stature: float
    hip_height: float
    trunk: float
    shoulder_half: float
    hip_half: float
    upper_arm: float
    forearm: float
    head_radius: float
    girth: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        """Draw the body of a random adult."""
        h = rng.uniform(1.52, 1.94)
        girth = rng.uniform(0.85, 1.3)
        arm = rng.uniform(0.95, 1.05)
        return cls(
            stature=h,
            hip_height=h * rng.uniform(0.505, 0.535),
            trunk=h * rng.uniform(0.285, 0.31),
            shoulder_half=h * rng.uniform(0.105, 0.125),
            hip_half=h * rng.uniform(0.052, 0.064),
            upper_arm=h * 0.172 * arm,
            forearm=h * 0.205 * arm,
            head_radius=h * rng.uniform(0.06, 0.067),
            girth=girth,
        )


@dataclass(frozen=True, slots=True)
class Posture:
    """Trunk and head over time; each (T,) in radians or metres, ``shift`` (T, 3)."""

    lean: Array
    side: Array
    twist: Array
    nod: Array
    shift: Array


@dataclass(frozen=True, slots=True)
class Trunk:
    """Positions of trunk, head and legs, to which hand targets refer.

    Attributes:
        joints: (T, 20, 3), not yet with the arms.
        axes: (T, 3, 3) unit vectors left, up and forward of the trunk.
        head_axes: (T, 3, 3) unit vectors left, up and forward of the head.
    """

    joints: Array
    axes: Array
    head_axes: Array


def pose_trunk(body: Body, posture: Posture) -> Trunk:
    """Place trunk, head and legs; the feet do not move."""
    frames = len(posture.lean)
    joints = np.zeros((frames, 20, 3))
    axes = _axes(posture.lean, posture.side, posture.twist)
    head_axes = _axes(posture.lean * 0.6 + posture.nod, posture.side, posture.twist * 0.6)
    left, up = axes[:, 0], axes[:, 1]
    hips = posture.shift + np.array([0.0, body.hip_height, 0.0])
    joints[:, HIPS] = hips
    joints[:, SPINE] = hips + up * body.trunk * 0.45
    joints[:, SHOULDERS] = hips + up * body.trunk
    joints[:, HEAD] = joints[:, SHOULDERS] + up * body.stature * 0.05 + head_axes[:, 1] * body.stature * 0.065
    joints[:, HEAD] += head_axes[:, 2] * 0.02
    level = _axes(posture.lean * 0, posture.side * 0, posture.twist * 0.3)[:, 0]  # hips twist less than shoulders
    for sign, shoulder, hip in ((1, L_SHOULDER, L_HIP), (-1, R_SHOULDER, R_HIP)):
        joints[:, shoulder] = joints[:, SHOULDERS] + left * sign * body.shoulder_half - up * 0.02
        joints[:, hip] = hips + level * sign * body.hip_half
        foot = np.array([sign * (body.hip_half + 0.05), 0.07, 0.0])
        knee, ankle = _reach(
            joints[:, hip], np.broadcast_to(foot, (frames, 3)), body.hip_height * 0.5, body.hip_height * 0.47,
            np.broadcast_to([sign * 0.15, 0.0, 1.0], (frames, 3)),
        )  # fmt: skip
        joints[:, hip + 1], joints[:, hip + 2] = knee, ankle
        joints[:, hip + 3] = ankle + np.array([sign * 0.03, -0.03, 0.14])
    return Trunk(joints, axes, head_axes)


def pose_arms(body: Body, trunk: Trunk, right: Array, left: Array, raised: float) -> Array:
    """Place the arms so that the hands reach their targets.

    Args:
        body: The proportions.
        trunk: Result of ``pose_trunk``.
        right: (T, 3) target of the right hand.
        left: (T, 3) target of the left hand.
        raised: 0 lets the right elbow hang, 1 lifts it to the side.

    Returns:
        (T, 20, 3) all joints.
    """
    joints = trunk.joints.copy()
    for sign, shoulder, target, lift in ((1, L_SHOULDER, left, 0.0), (-1, R_SHOULDER, right, raised)):
        outward = trunk.axes[:, 0] * sign
        pole = outward * (0.45 + 0.8 * lift) - trunk.axes[:, 2] * 0.4 + [0.0, -1.0 + 0.9 * lift, 0.0]
        elbow, hand = _reach(joints[:, shoulder], target, body.upper_arm, body.forearm, pole)
        joints[:, shoulder + 1], joints[:, shoulder + 3] = elbow, hand
        joints[:, shoulder + 2] = elbow + (hand - elbow) * 0.72
    return joints


def mirror(points: Array) -> Array:
    """Mirror points (..., 3) to their left-handed version."""
    return points * [-1.0, 1.0, 1.0]


def mirror_joints(joints: Array) -> Array:
    """Mirror joints (T, 20, 3) to their left-handed version."""
    return mirror(joints)[:, _MIRRORED]


def ease(u: Array, moments: npt.ArrayLike, values: npt.ArrayLike) -> Array:
    """Minimum-jerk interpolation between key values, which are held before the first and after the last key.

    Args:
        u: (T,) requested times.
        moments: (K,) increasing times of the keys.
        values: (K,) or (K, C) constant keys, or (K, T, C) moving keys.

    Returns:
        (T,) or (T, C).

    Source: Flash and Hogan, "The coordination of arm movements", J. Neurosci. 1985: human reaches are minimum-jerk.
    """
    at, keys = np.asarray(moments, dtype=np.float64), np.asarray(values, dtype=np.float64)
    i = np.clip(np.searchsorted(at, u, side="right") - 1, 0, len(at) - 2)
    s = np.clip((u - at[i]) / (at[i + 1] - at[i]), 0, 1)
    s = s**3 * (10 - 15 * s + 6 * s**2)
    if keys.ndim == 1:
        return keys[i] * (1 - s) + keys[i + 1] * s
    pick: tuple[Any, Any] = (i, i + 1) if keys.ndim == 2 else ((i, np.arange(len(u))), (i + 1, np.arange(len(u))))
    mixed: Array = keys[pick[0]] * (1 - s[:, None]) + keys[pick[1]] * s[:, None]
    return mixed


def _axes(lean: Array, side: Array, twist: Array) -> Array:
    """(T, 3, 3) unit vectors left, up, forward after leaning forward, sideways (to the left) and turning left."""
    up = np.stack([np.sin(side), np.cos(lean) * np.cos(side), np.sin(lean) * np.cos(side)], axis=-1)
    left = np.stack([np.cos(side), -np.sin(side) * np.cos(lean), -np.sin(side) * np.sin(lean)], axis=-1)
    axes = np.stack([left, up, np.cross(left, up)], axis=1)
    x, z = axes[..., 0].copy(), axes[..., 2].copy()
    c, s = np.cos(twist)[:, None], np.sin(twist)[:, None]
    axes[..., 0], axes[..., 2] = c * x + s * z, c * z - s * x
    return axes


def _reach(root: Array, target: Array, upper: float, lower: float, pole: Array) -> tuple[Array, Array]:
    """Two-bone inverse kinematics.

    Returns:
        (T, 3) middle joint, bent towards ``pole``, and (T, 3) end, which is the target if it can be reached.
    """
    to = target - root
    distance = np.linalg.norm(to, axis=-1, keepdims=True)
    direction = to / np.maximum(distance, 1e-6)
    distance = np.clip(distance, abs(upper - lower) + 0.02, (upper + lower) * 0.995)
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    height = np.sqrt(np.maximum(upper**2 - along**2, 0))
    across = pole - direction * np.sum(pole * direction, axis=-1, keepdims=True)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)
    return root + direction * along + across * height, root + direction * distance
