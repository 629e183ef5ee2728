"""Objects of the actions: carried by a hand, lying, falling or flying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kd_edge.data.synthetic.figure import HEAD, L_HAND, R_ELBOW, R_HAND, Array, Trunk, ease

GRAVITY = 9.81


@dataclass(frozen=True, slots=True)
class Prop:
    """An object: a capsule between two points.

    Attributes:
        material: Name of its material, see ``scene.MATERIALS``.
        ends: (T, 2, 3) end points, metres.
        radius: Radius, metres.
    """

    material: str
    ends: Array
    radius: float


def props(
    kind: str, held: tuple[float, float], joints: Array, trunk: Trunk, u: Array, times_s: Array
) -> tuple[Prop, ...]:
    """Return the objects of a right-handed performance.

    Args:
        kind: ``cup``, ``bowl``, ``toothbrush``, ``hairbrush``, ``ball`` or an empty string.
        held: Times u between which a ball is in the hand.
        joints: (T, 20, 3) joints of the figure.
        trunk: Axes of the figure.
        u: (T,) progress of the action.
        times_s: (T,) seconds.
    """
    hand = joints[:, R_HAND]
    left, up, forward = (trunk.head_axes[:, i] for i in range(3))
    if kind == "cup":
        to_mouth = np.linalg.norm(hand - joints[:, HEAD], axis=-1, keepdims=True)
        tilt = ease(to_mouth[:, 0], [0.15, 0.32], [1.1, 0.0])[:, None]  # the rim tilts towards the mouth once there
        axis = np.cos(tilt) * [0.0, 1.0, 0.0] - np.sin(tilt) * forward
        return (_stick("cup", hand + 0.03 * forward - 0.04 * axis, axis, 0.12, 0.048),)
    if kind == "bowl":
        bowl = joints[:, L_HAND] + [0.0, 0.03, 0.04]
        spoon = _unit(joints[:, HEAD] - hand)
        return (
            _stick("bowl", bowl - left * 0.05, left, 0.10, 0.055),
            _stick("spoon", hand, spoon, 0.14, 0.013),
        )
    if kind == "toothbrush":
        return (_stick("toothbrush", hand - 0.03 * left, left + 0.2 * up, 0.18, 0.021),)
    if kind == "hairbrush":
        return (_stick("hairbrush", hand, _unit(left * 0.8 + forward * 0.5), 0.20, 0.045),)
    if kind == "ball":
        centre = _ball(hand + 0.05 * _unit(hand - joints[:, R_ELBOW]), held, u, times_s)
        return (Prop("ball", np.stack([centre, centre], axis=1), 0.062),)
    return ()


def _ball(hand: Array, held: tuple[float, float], u: Array, times_s: Array) -> Array:
    """(T, 3) position of the ball: at rest before it is held, moving freely afterwards."""
    centre = hand.copy()
    before, after = u < held[0], u > held[1]
    if before.any() and not before.all():
        centre[before] = hand[int(np.argmin(before))]
        centre[before, 1] = 0.06
    if after.any() and not after.all():
        first = int(np.argmax(after))
        step = max(times_s[first] - times_s[first - 1], 1e-3)
        speed = (hand[first] - hand[first - 1]) / step
        fast = np.linalg.norm(speed) > 1.5
        velocity = speed / np.linalg.norm(speed) * 6.0 if fast else speed * 0.0
        t = (times_s[after] - times_s[first - 1])[:, None]
        centre[after] = hand[first - 1] + velocity * t - [0.0, GRAVITY / 2, 0.0] * t**2
        centre[after, 1] = _bounce(centre[after, 1], 0.06)
    return centre


def _bounce(height: Array, floor: float) -> Array:
    """Fold a falling height at the floor, once, with most of the energy lost."""
    below = height < floor
    if not below.any():
        return height
    since = np.maximum(np.cumsum(below) - 1, 0)
    hop = 0.05 * np.maximum(np.sin(np.minimum(since * 0.45, np.pi)), 0)
    return np.where(below, floor + hop, height)


def _stick(material: str, start: Array, axis: Array, length: float, radius: float) -> Prop:
    return Prop(material, np.stack([start, start + _unit(axis) * length], axis=1), radius)


def _unit(vector: Array) -> Array:
    scaled: Array = vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-6)
    return scaled
