"""The ten actions as key poses, and the performance of an action by a body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from kd_edge.data.synthetic import figure, props
from kd_edge.data.synthetic.figure import Array, Body, Posture, Trunk, ease
from kd_edge.data.synthetic.props import Prop

LABELS = ("drink", "eat", "brush teeth", "brush hair", "drop", "pick up", "throw", "sit down", "stand up", "clap")
"""The ten classes of NTU RGB+D that the cross-modal paper uses (A001 to A010)."""

SEAT_HEIGHT = 0.46
SEAT_BACK = 0.36
"""Distance of a seated figure's hips behind the feet, metres."""

Refer = Literal["rest", "chest", "head", "shoulder", "floor", "thigh"]


class Hand(NamedTuple):
    """Target of a hand at time u of the action: outward, up and forward of its reference, metres."""

    u: float
    refer: Refer
    outward: float = 0.0
    up: float = 0.0
    forward: float = 0.0


class Lean(NamedTuple):
    """Trunk and head at time u: degrees, and displacement of the hips down and back, metres (``seat`` 1: seated)."""

    u: float
    lean: float = 0.0
    twist: float = 0.0
    nod: float = 0.0
    down: float = 0.0
    back: float = 0.0
    seat: float = 0.0


class Action(NamedTuple):
    """Key poses of a right-handed performance; u runs from 0 to 1 over ``seconds``.

    ``wobble`` adds outward, up and forward amplitudes (m) at ``hertz`` to the main hand (to both hands with ``both``)
    between the second and the second to last key.
    """

    seconds: tuple[float, float]
    main: tuple[Hand, ...]
    other: tuple[Hand, ...] = (Hand(0, "rest"), Hand(1, "rest"))
    trunk: tuple[Lean, ...] = (Lean(0), Lean(1))
    wobble: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hertz: tuple[float, float] = (1.0, 1.0)
    both: bool = False
    raised: float = 0.0
    prop: str = ""
    held: tuple[float, float] = (0.0, 1.0)


def _stroke(u: float, front: bool) -> Hand:
    return Hand(u, "head", 0.05, 0.14, 0.11) if front else Hand(u, "head", 0.13, -0.02, -0.12)


_REST = Hand(0, "rest"), Hand(1, "rest")
_BOWL, _MOUTH = (0.02, -0.26, 0.28), (0.0, -0.05, 0.14)
_WAIST, _APART = (0.16, -0.36, 0.33), (0.16, -0.2, 0.36)


def _bite(u: float, at_mouth: bool) -> Hand:
    return Hand(u, "head", *_MOUTH) if at_mouth else Hand(u, "chest", *_BOWL)


ACTIONS = {
    "drink": Action(
        (2.0, 3.0),
        (_REST[0], Hand(0.16, "chest", *_WAIST), Hand(0.38, "head", *_MOUTH), Hand(0.66, "head", 0.0, -0.02, 0.14),
         Hand(0.86, "chest", *_WAIST), _REST[1]),
        trunk=(Lean(0), Lean(0.36), Lean(0.5, lean=-5, nod=-20), Lean(0.62, lean=-5, nod=-20), Lean(0.8), Lean(1)),
        prop="cup",
    ),
    "eat": Action(
        (2.4, 3.4),
        (_REST[0], *(_bite(0.12 + 0.125 * i, i % 2 == 1) for i in range(7)), _REST[1]),
        other=(Hand(0, "rest"), Hand(0.12, "chest", 0.06, -0.32, 0.27), Hand(0.88, "chest", 0.06, -0.32, 0.27),
               Hand(1, "rest")),
        trunk=(Lean(0), Lean(0.12, lean=6, nod=14), Lean(0.88, lean=6, nod=14), Lean(1)),
        prop="bowl",
    ),
    "brush teeth": Action(
        (2.0, 3.0),
        (_REST[0], Hand(0.16, "head", 0.09, -0.05, 0.15), Hand(0.86, "head", 0.09, -0.05, 0.15), _REST[1]),
        trunk=(Lean(0), Lean(0.16, lean=5, nod=5), Lean(0.86, lean=5, nod=5), Lean(1)),
        wobble=(0.045, 0.012, 0.0), hertz=(2.6, 4.2), raised=0.8, prop="toothbrush",
    ),
    "brush hair": Action(
        (2.0, 3.0),
        (Hand(0, "rest"), *(_stroke(0.15 + 0.1167 * i, i % 2 == 0) for i in range(7)), Hand(1, "rest")),
        trunk=(Lean(0), Lean(0.15, nod=6), Lean(0.85, nod=6), Lean(1)),
        raised=1.0, prop="hairbrush",
    ),
    "drop": Action(
        (1.5, 2.3),
        (Hand(0, "chest", 0.08, -0.2, 0.38), Hand(0.36, "chest", 0.08, -0.2, 0.38),
         Hand(0.44, "chest", 0.1, -0.16, 0.38), Hand(0.62, "chest", 0.1, -0.18, 0.36), _REST[1]),
        trunk=(Lean(0), Lean(0.36), Lean(0.6, lean=6, nod=28), Lean(0.8, lean=6, nod=28), Lean(1)),
        prop="ball", held=(0.0, 0.38),
    ),
    "pick up": Action(
        (1.8, 2.7),
        (_REST[0], Hand(0.12, "rest"), Hand(0.44, "floor"), Hand(0.52, "floor"),
         Hand(0.9, "chest", 0.1, -0.28, 0.33), Hand(1, "chest", 0.1, -0.28, 0.33)),
        trunk=(Lean(0), Lean(0.08), Lean(0.44, lean=72, nod=-15, down=0.3, back=0.16),
               Lean(0.52, lean=72, nod=-15, down=0.3, back=0.16), Lean(0.88), Lean(1)),
        prop="ball", held=(0.48, 1.0),
    ),
    "throw": Action(
        (1.3, 2.1),
        (Hand(0, "chest", 0.12, -0.25, 0.3), Hand(0.14, "chest", 0.12, -0.25, 0.3),
         Hand(0.4, "shoulder", 0.22, 0.22, -0.32), Hand(0.54, "shoulder", 0.0, 0.38, 0.42),
         Hand(0.68, "shoulder", -0.28, -0.35, 0.4), _REST[1]),
        other=(Hand(0, "rest"), Hand(0.4, "shoulder", 0.05, -0.1, 0.42), Hand(0.7, "rest"), Hand(1, "rest")),
        trunk=(Lean(0), Lean(0.14), Lean(0.4, lean=-10, twist=-38), Lean(0.56, lean=12, twist=18),
               Lean(0.68, lean=20, twist=32), Lean(1)),
        raised=0.5, prop="ball", held=(0.0, 0.53),
    ),
    "sit down": Action(
        (1.5, 2.5),
        (Hand(0, "rest"), Hand(0.3, "rest"), Hand(0.7, "thigh"), Hand(1, "thigh")),
        other=(Hand(0, "rest"), Hand(0.3, "rest"), Hand(0.7, "thigh"), Hand(1, "thigh")),
        trunk=(Lean(0), Lean(0.1), Lean(0.38, lean=34, nod=8, down=0.12, back=0.16), Lean(0.66, lean=16, seat=1),
               Lean(0.82, lean=2, seat=1), Lean(1, lean=2, seat=1)),
    ),
    "stand up": Action(
        (1.5, 2.5),
        (Hand(0, "thigh"), Hand(0.3, "thigh"), Hand(0.72, "rest"), Hand(1, "rest")),
        other=(Hand(0, "thigh"), Hand(0.3, "thigh"), Hand(0.72, "rest"), Hand(1, "rest")),
        trunk=(Lean(0, lean=2, seat=1), Lean(0.14, lean=2, seat=1), Lean(0.34, lean=38, seat=1),
               Lean(0.52, lean=32, down=0.2, back=0.14), Lean(0.84), Lean(1)),
    ),
    "clap": Action(
        (1.8, 2.8),
        (_REST[0], Hand(0.13, "chest", *_APART), Hand(0.87, "chest", *_APART), _REST[1]),
        other=(_REST[0], Hand(0.13, "chest", *_APART), Hand(0.87, "chest", *_APART), _REST[1]),
        wobble=(0.15, 0.0, 0.0), hertz=(1.6, 2.8), both=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manner:
    """Variation between performances.

    Attributes:
        seconds: Duration of the action.
        delay_s: Start of the action; negative if the recording starts late.
        left_handed: Whether the action is mirrored.
        amplitude: Scale of repeated motion and leaning.
        hertz: Position in the action's range of frequencies, 0..1.
        phases: (12,) random phases, radians.
        offset: (2, 3) displacement of the main and the other hand from the key pose, metres.
    """

    seconds: float
    delay_s: float
    left_handed: bool
    amplitude: float
    hertz: float
    phases: Array
    offset: Array

    @classmethod
    def draw(cls, rng: np.random.Generator, action: str) -> Manner:
        """Draw a random manner."""
        seconds = rng.uniform(*ACTIONS[action].seconds)
        return cls(
            seconds=seconds,
            delay_s=rng.uniform(-0.12 * seconds, 0.3),
            left_handed=bool(rng.random() < 0.3),
            amplitude=rng.uniform(0.8, 1.2),
            hertz=rng.random(),
            phases=rng.uniform(0, 2 * np.pi, 12),
            offset=rng.normal(0, 0.015, (2, 3)),
        )


@dataclass(frozen=True, slots=True)
class Performance:
    """Joints (T, 20, 3) in metres in the body's frame, the objects, and the axes (T, 3, 3) of the head."""

    joints: Array
    props: tuple[Prop, ...]
    head_axes: Array


def perform(name: str, body: Body, manner: Manner, times_s: Array) -> Performance:
    """Compute the performance of an action by a body.

    Args:
        name: One of ``LABELS``.
        body: Body of the performer.
        manner: Variation of this performance.
        times_s: (T,) seconds; the pose is held before the start and after the end of the action.
    """
    action = ACTIONS[name]
    u = np.clip((times_s - manner.delay_s) / manner.seconds, 0, 1)
    trunk = figure.pose_trunk(body, _posture(action, body, manner, u, times_s))
    hands = [
        _hand(keys, body, manner, trunk, u, times_s, side) for side, keys in enumerate((action.main, action.other))
    ]
    wobble = _wobble(action, manner, u, trunk)
    hands[0] += wobble
    if action.both:
        hands[1] += _across(wobble, trunk)
    joints = figure.pose_arms(body, trunk, hands[0], hands[1], action.raised)
    objects = props.props(action.prop, action.held, joints, trunk, u, times_s)
    head_axes = trunk.head_axes
    if manner.left_handed:
        joints = figure.mirror_joints(joints)
        objects = tuple(Prop(p.material, figure.mirror(p.ends), p.radius) for p in objects)
        head_axes = figure.mirror(head_axes)
    return Performance(joints, objects, head_axes)


def join(takes: Sequence[Performance]) -> Performance:
    """Concatenate performances of the same action."""
    objects = tuple(
        replace(prop, ends=np.concatenate([take.props[i].ends for take in takes]))
        for i, prop in enumerate(takes[0].props)
    )
    joints = np.concatenate([take.joints for take in takes])
    return Performance(joints, objects, np.concatenate([take.head_axes for take in takes]))


def _posture(action: Action, body: Body, manner: Manner, u: Array, times_s: Array) -> Posture:
    keys = np.array(action.trunk)
    lean, twist, nod, down, back, seat = ease(u, keys[:, 0], keys[:, 1:]).T
    scale = np.clip(manner.amplitude, 0.85, 1.12)
    sway = 0.012 * np.sin(0.9 * times_s[:, None] * [1.0, 1.7, 1.3] + manner.phases[:3])
    shift = np.stack(
        [
            sway[:, 0],
            -down * scale - seat * (body.hip_height - SEAT_HEIGHT - 0.06),
            sway[:, 1] - back * scale - seat * SEAT_BACK,
        ],
        axis=-1,
    )
    side = 0.02 * np.sin(1.1 * times_s + manner.phases[3])
    nod = nod + 3 * np.sin(1.4 * times_s + manner.phases[4])
    return Posture(np.radians(lean * scale), side, np.radians(twist * scale) + sway[:, 2] * 3, np.radians(nod), shift)


def _hand(
    keys: tuple[Hand, ...], body: Body, manner: Manner, trunk: Trunk, u: Array, times_s: Array, side: int
) -> Array:
    """(T, 3) target of the main (side 0, right) or other hand."""
    targets = [_target(key, body, trunk, side) for key in keys]
    reach = ease(u, [key.u for key in keys], np.stack(targets))
    tremor = 0.006 * np.sin(times_s[:, None] * [6.3, 5.1, 7.8] + manner.phases[5 + side : 8 + side])
    target: Array = reach + manner.offset[side] + tremor
    return target


def _target(key: Hand, body: Body, trunk: Trunk, side: int) -> Array:
    """(T, 3) position of the hand in a key pose for every frame, as the trunk moves."""
    sign = 1.0 if side else -1.0
    shoulder = trunk.joints[:, figure.L_SHOULDER if side else figure.R_SHOULDER]
    knee, hip = (figure.L_KNEE, figure.L_HIP) if side else (figure.R_KNEE, figure.R_HIP)
    scale = body.stature / 1.75
    offset = np.array([sign * key.outward, key.up, key.forward]) * scale
    if key.refer == "rest":
        hanging: Array = shoulder + np.array([sign * 0.07, -0.965 * (body.upper_arm + body.forearm), 0.06])
        return hanging
    if key.refer == "floor":
        return np.broadcast_to(np.array([sign * 0.1, 0.09, 0.34]) + offset, shoulder.shape)
    if key.refer == "thigh":
        on_thigh: Array = trunk.joints[:, hip] * 0.3 + trunk.joints[:, knee] * 0.7 + [0.0, 0.09, 0.0]
        return on_thigh
    centre = {"chest": figure.SHOULDERS, "head": figure.HEAD}.get(key.refer)
    origin = shoulder if centre is None else trunk.joints[:, centre]
    axes = trunk.head_axes if key.refer == "head" else trunk.axes
    moved: Array = origin + np.einsum("c,tcd->td", offset, axes)
    return moved


def _wobble(action: Action, manner: Manner, u: Array, trunk: Trunk) -> Array:
    """(T, 3) repeated motion of the main hand."""
    if not any(action.wobble):
        return np.zeros((len(u), 3))
    start, end = action.main[1].u, action.main[-2].u
    envelope = ease(u, [start - 0.02, start + 0.06, end - 0.06, end + 0.02], [0.0, 1.0, 1.0, 0.0])
    hertz = action.hertz[0] + manner.hertz * (action.hertz[1] - action.hertz[0])
    angle = 2 * np.pi * hertz * u * manner.seconds + manner.phases[8]
    outward, up, forward = np.array(action.wobble) * manner.amplitude
    swing = (np.sin(angle) * envelope)[:, None]
    axes = trunk.axes
    moved: Array = swing * (-outward * axes[:, 0] + up * axes[:, 1] + forward * axes[:, 2])
    return moved


def _across(wobble: Array, trunk: Trunk) -> Array:
    """Mirror a motion to the other side of the trunk."""
    left = trunk.axes[:, 0]
    mirrored: Array = wobble - 2 * left * np.sum(wobble * left, axis=-1, keepdims=True)
    return mirrored
