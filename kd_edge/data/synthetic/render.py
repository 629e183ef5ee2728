"""Render a performance in two bands: limbs as capsules, far ones first, then light, lens, vignette and noise."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.synthetic import figure as f
from kd_edge.data.synthetic.actions import Performance
from kd_edge.data.synthetic.figure import Array, Body
from kd_edge.data.synthetic.scene import MATERIALS, SHIFT, Camera, Look, build_room
from kd_edge.packages import import_extra
from kd_edge.types import Float32

VERSION = 2
"""Version of the pictures; part of the cache key."""

_SLACK = 48  # largest shift of the noise pattern between frames, pixels
_CORNERS = 6  # corners of a capsule's round end


class _Part(NamedTuple):
    """A capsule of the body between two joints; radii relative to the stature."""

    material: str
    start: int
    end: int
    radii: tuple[float, float]


_LIMBS = (
    _Part("skin", f.SHOULDERS, f.HEAD, (0.032, 0.03)),
    _Part("arm", f.L_SHOULDER, f.L_ELBOW, (0.032, 0.027)), _Part("arm", f.R_SHOULDER, f.R_ELBOW, (0.032, 0.027)),
    _Part("sleeve", f.L_ELBOW, f.L_WRIST, (0.025, 0.019)), _Part("sleeve", f.R_ELBOW, f.R_WRIST, (0.025, 0.019)),
    _Part("skin", f.L_WRIST, f.L_HAND, (0.02, 0.024)), _Part("skin", f.R_WRIST, f.R_HAND, (0.02, 0.024)),
    _Part("trousers", f.L_HIP, f.L_KNEE, (0.05, 0.036)), _Part("trousers", f.R_HIP, f.R_KNEE, (0.05, 0.036)),
    _Part("shin", f.L_KNEE, f.L_ANKLE, (0.033, 0.023)), _Part("shin", f.R_KNEE, f.R_ANKLE, (0.033, 0.023)),
    _Part("shoe", f.L_ANKLE, f.L_FOOT, (0.026, 0.02)), _Part("shoe", f.R_ANKLE, f.R_FOOT, (0.026, 0.02)),
    _Part("trousers", f.L_HIP, f.R_HIP, (0.055, 0.055)),
)  # fmt: skip


class Film:
    """One recording that can be painted frame by frame, in either band.

    Args:
        performance: The motion.
        body: Body of the performer.
        look: Clothes, room, light and noise.
        camera: The view.
        height: Image height, pixels.
        width: Image width, pixels.
        fps: Frame rate, 1/s, for the change of the light.
        seed: Seed of the noise.
        first: Number of the first frame, so that light and noise continue from one recording to the next.
    """

    def __init__(
        self,
        performance: Performance,
        body: Body,
        look: Look,
        camera: Camera,
        height: int,
        width: int,
        fps: float,
        seed: int,
        first: int = 0,
    ) -> None:
        self._cv2 = import_extra("cv2", "cpu")
        self._size = height, width
        self._look = look
        self._room = build_room(camera, look, height, width)
        self._noise = _noise(height + _SLACK, width + _SLACK)
        self._grain = np.float32(look.read * (height / 120) ** 0.5)
        self._shot = np.float32(look.shot * height / 120)
        self._blur = look.blur * height / 120
        frames = len(performance.joints)
        rng = np.random.Generator(np.random.PCG64([seed, first]))
        self._moves = rng.integers(0, _SLACK, (frames, 2)).tolist()
        self._light = _light(look, (np.arange(frames) + first) / fps)
        self._vignette = _vignette(height, width)
        self._capsules(performance, body, camera)

    def __len__(self) -> int:
        return len(self._moves)

    def rgb(self, k: int) -> npt.NDArray[np.uint8]:
        """Return frame k in visible light: (H, W, 3) uint8, R, G, B."""
        canvas = self._room.rgb.copy()
        self._paint(canvas, k, self._colours)
        lit = canvas.astype(np.float32)
        lit *= self._light[k]
        y, x = self._moves[k]
        lit += self._noise[y : y + self._size[0], x : x + self._size[1]] * (self._grain / 2)
        return self._bytes(lit)

    def nir(self, k: int) -> npt.NDArray[np.uint8]:
        """Return frame k in the near infrared: (H, W) uint8."""
        canvas = self._room.nir.copy()
        self._paint(canvas, k, self._values[k])
        if self._blur > 0:
            self._cv2.GaussianBlur(canvas, (0, 0), self._blur, dst=canvas)
        value = canvas * self._vignette
        y, x = self._moves[k]
        spread = np.sqrt(value * self._shot + self._grain**2)
        spread *= self._noise[y : y + self._size[0], x : x + self._size[1], 0]
        return self._bytes(value + spread)

    def _bytes(self, image: Float32) -> npt.NDArray[np.uint8]:
        converted: npt.NDArray[np.uint8] = self._cv2.convertScaleAbs(np.maximum(image, 0, out=image))
        return converted

    def _capsules(self, performance: Performance, body: Body, camera: Camera) -> None:
        """Compute outlines, depth order and shades of all parts in all frames."""
        ends, radii, names = _parts(performance, body, self._look)
        placed = camera.place(ends)  # (T, P, 2, 3)
        uv, scale = camera.project(placed, *self._size)
        pixels = np.maximum(scale * radii, 0.55)
        bright = _outline(uv - np.array([-self._look.light_side, 1.0]) * pixels[..., None] * 0.22, pixels * 0.62)
        self._outlines = np.stack([_outline(uv, pixels), bright], axis=2)  # (T, P, 2, V, 2)
        depth = placed[..., 2].mean(axis=-1)
        self._torso = names.index("torso")
        depth[:, self._torso] += 0.02  # arms that touch the trunk are in front of it
        self._order = np.argsort(-depth, axis=1, kind="stable").tolist()
        material = [MATERIALS.index("shirt" if name == "torso" else name) for name in names]
        shades = np.array([0.72, 1.0])
        colours = self._look.colours[material][:, None, :] * shades[:, None] * 255
        self._colours = colours.tolist()  # (P, 2, 3)
        falloff = (camera.distance / np.maximum(depth, 0.5)) ** 2  # active light falls with the squared distance
        values = self._look.reflectances[material][:, None] * falloff[..., None] * shades * self._look.illumination
        self._values = np.minimum(values, 255).tolist()  # (T, P, 2)
        stripe = MATERIALS.index("stripe")
        self._stripe = (self._look.colours[stripe] * 255).tolist(), float(self._look.reflectances[stripe])
        self._stripe_gain = np.minimum(falloff[:, self._torso] * self._look.illumination, 400).tolist()
        self._trunk = _corners(performance.joints, camera, self._size, body)

    def _paint(self, canvas: npt.NDArray[np.uint8], k: int, shades: list[Any]) -> None:
        cv2 = self._cv2
        outlines = self._outlines[k]
        for part in self._order[k]:
            if part == self._torso:
                self._paint_trunk(canvas, k, shades[part])
                continue
            for layer in (0, 1):
                cv2.fillConvexPoly(canvas, outlines[part, layer], shades[part][layer], cv2.LINE_AA, SHIFT)

    def _paint_trunk(self, canvas: npt.NDArray[np.uint8], k: int, shades: list[Any]) -> None:
        cv2 = self._cv2
        outer, inner, stripes = self._trunk
        cv2.fillConvexPoly(canvas, outer[k], shades[0], cv2.LINE_AA, SHIFT)
        cv2.fillConvexPoly(canvas, inner[k], shades[1], cv2.LINE_AA, SHIFT)
        colour = self._stripe[0] if canvas.ndim == 3 else min(255.0, self._stripe[1] * self._stripe_gain[k])
        for i in range(self._look.stripes):
            band = stripes[k, round(1 + i * 9 / self._look.stripes)]
            cv2.fillConvexPoly(canvas, band, colour, cv2.LINE_AA, SHIFT)


def _parts(performance: Performance, body: Body, look: Look) -> tuple[Array, Array, list[str]]:
    """Capsules of limbs, trunk, head and objects: ends (T, P, 2, 3), radii (P, 2) in metres, materials."""
    joints = performance.joints
    ends = [joints[:, [part.start, part.end]] for part in _LIMBS]
    thick = body.stature * body.girth**0.7
    radii = [(a * thick, b * thick) for *_, (a, b) in _LIMBS]
    names = [part.material for part in _LIMBS]
    ends.append(joints[:, [f.SHOULDERS, f.HIPS]])
    radii.append((0.09 * thick, 0.09 * thick))
    names.append("torso")
    up, forward = (performance.head_axes[:, i] * body.head_radius for i in (1, 2))
    head = joints[:, f.HEAD]
    hair, face, nose = head + up * 0.25 - forward * 0.2, head - up * 0.12 + forward * 0.28, head + forward * 1.1
    for name, first, last, radius in (
        ("hair", hair, hair - up * (look.long_hair - 1) * 3, 1.0),
        ("skin", face + up * 0.2, face - up * 0.25, 0.84),
        ("skin", nose, nose - up * 0.15, 0.16),
    ):
        ends.append(np.stack([first, last], axis=1))
        radii.append((radius * body.head_radius, radius * body.head_radius))
        names.append(name)
    for prop in performance.props:
        ends.append(prop.ends)
        radii.append((prop.radius, prop.radius))
        names.append(prop.material)
    return np.stack(ends, axis=1), np.array(radii), names


def _outline(uv: Array, radii: Array) -> npt.NDArray[np.int32]:
    """Convex outlines (..., 2 * corners, 2) in sub-pixels of capsules with ends uv (..., 2, 2) and radii (..., 2)."""
    along = uv[..., 1, :] - uv[..., 0, :]
    angle = np.arctan2(along[..., 1], along[..., 0])[..., None]
    turn = np.linspace(-np.pi / 2, np.pi / 2, _CORNERS)
    rounds = []
    for end, half_turn in ((0, np.pi), (1, 0.0)):
        direction = np.stack([np.cos(angle + turn + half_turn), np.sin(angle + turn + half_turn)], axis=-1)
        rounds.append(uv[..., end, None, :] + radii[..., end, None, None] * direction)
    return np.round(np.concatenate(rounds, axis=-2) * (1 << SHIFT)).astype(np.int32)


def _corners(joints: Array, camera: Camera, size: tuple[int, int], body: Body) -> tuple[Any, Any, Any]:
    """The trunk in all frames: outer and inner outline, and (T, 10, 4, 2) bands across it, in sub-pixels."""
    cv2 = import_extra("cv2", "cpu")
    corners = camera.place(joints[:, [f.L_SHOULDER, f.R_SHOULDER, f.R_HIP, f.L_HIP]])
    uv, scale = camera.project(corners, *size)
    radius = np.array([0.038, 0.038, 0.055, 0.055]) * body.stature * body.girth * scale
    turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)

    def hulls(spread: float, lift: float) -> list[Any]:
        centre = uv.mean(axis=1, keepdims=True)
        points = centre + (uv - centre) * spread - [0.0, lift] * radius[..., None]
        cloud = points[:, :, None] + circle * (radius * spread)[..., None, None]
        fixed = np.round(cloud.reshape(len(uv), -1, 2) * (1 << SHIFT)).astype(np.int32)
        return [cv2.convexHull(frame) for frame in fixed]

    down = np.linspace(0, 1, 22)[:, None, None]
    left = uv[:, None, 0] * (1 - down[None, :, 0]) + uv[:, None, 3] * down[None, :, 0]  # (T, 22, 2)
    right = uv[:, None, 1] * (1 - down[None, :, 0]) + uv[:, None, 2] * down[None, :, 0]
    bands = np.stack([left[:, 0:20:2], right[:, 0:20:2], right[:, 1:21:2], left[:, 1:21:2]], axis=2)
    return hulls(1.0, 0.0), hulls(0.78, 0.15), np.round(bands * (1 << SHIFT)).astype(np.int32)


def _light(look: Look, times_s: Array) -> Float32:
    """(T, 1, 1, 3) gain of the visible light, with a slow and a faster change."""
    p = look.phases
    change = np.sin(2.1 * times_s + p[0]) + 0.5 * np.sin(5.3 * times_s + p[1])
    gain = look.brightness * (1 + look.flicker * change / 1.5)
    drift = 0.02 * np.sin(0.8 * times_s[:, None] + p[1:4])
    lit: Float32 = (gain[:, None] * (look.tint + drift)).astype(np.float32)[:, None, None, :]
    return lit


@functools.lru_cache(maxsize=4)
def _vignette(height: int, width: int) -> Float32:
    """The illuminator's cone: 1 in the middle, 0.38 in the corners."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    return (1 / (1 + 0.8 * (x**2 + y**2))).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _noise(height: int, width: int) -> Float32:
    """One pattern of unit noise (height, width, 3), shifted at random per frame, which is faster than drawing it."""
    rng = np.random.Generator(np.random.PCG64(20))
    return rng.standard_normal((height, width, 3), dtype=np.float32)
