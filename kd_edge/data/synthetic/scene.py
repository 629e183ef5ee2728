"""Appearance of a generated recording: camera, room, clothes, light, and the empty room's pictures in both bands.

Visible light is the richer band, as in the recordings that this data set models. Every kind of object has its own
colour, sleeves, trunk, skin and trousers differ, and the light is moderate. In the near infrared these differences
vanish: dyes, plastics and enamel have similar reflectances, so that objects, limbs and trunk blend; the picture is
taken through a simpler lens, with few photons, from an illuminator whose light falls off towards the corners and with
the squared distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_edge.data.synthetic.actions import SEAT_BACK, SEAT_HEIGHT
from kd_edge.data.synthetic.figure import Array
from kd_edge.packages import import_extra
from kd_edge.types import Float32

VIEWS = {"front": 0.0, "left45": -45.0, "right45": 45.0}
"""Named views: rotation of the figure relative to the camera, in degrees."""

MATERIALS = (
    "skin", "hair", "shirt", "arm", "sleeve", "trousers", "shin", "shoe", "cup", "bowl", "spoon", "toothbrush",
    "hairbrush", "ball", "chair", "stripe",
)  # fmt: skip
"""``arm`` is the sleeve above the elbow, ``sleeve`` the one below."""

OBJECT_COLOURS = {
    "cup": (0.80, 0.10, 0.10),  # red enamel
    "bowl": (0.10, 0.25, 0.85),  # blue china
    "spoon": (0.80, 0.80, 0.84),  # steel
    "toothbrush": (0.05, 0.85, 0.80),  # turquoise plastic
    "hairbrush": (0.90, 0.10, 0.60),  # pink plastic
    "ball": (0.95, 0.75, 0.05),  # yellow rubber
}
"""Usual colour of each kind of object; single objects vary around it, see ``_materials``."""

SHIFT = 4
"""Sub-pixel bits of the drawing."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera that looks horizontally at the figure.

    Attributes:
        distance: Distance to the figure, metres.
        yaw: Rotation of the figure, radians.
        height: Height above the floor, metres.
        aside: Offset of the figure to the right of the optical axis, metres.
        focal: Focal length divided by the image width.
    """

    distance: float
    yaw: float
    height: float
    aside: float
    focal: float

    @classmethod
    def draw(cls, rng: np.random.Generator, view: str) -> Camera:
        """Draw a random camera of a named view."""
        distance = float(np.exp(rng.uniform(np.log(1.8), np.log(2.8))))
        yaw = np.radians(VIEWS[view] + rng.uniform(-12, 12))
        aside = rng.uniform(-0.16, 0.16) * distance
        return cls(distance, float(yaw), rng.uniform(0.85, 1.15), aside, rng.uniform(0.72, 0.8))

    def place(self, points: Array) -> Array:
        """Transform points from the body frame to the camera frame: (..., 3) x right, y down, z away, metres."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        placed = [c * x + s * z + self.aside, self.height - y, self.distance - (c * z - s * x)]
        return np.stack(placed, axis=-1)

    def project(self, placed: Array, height: int, width: int) -> tuple[Array, Array]:
        """Return pixel coordinates (..., 2) and pixels per metre (...) of points in the camera frame."""
        scale = self.focal * width / np.maximum(placed[..., 2], 0.3)
        uv = np.stack([width / 2 + placed[..., 0] * scale, height / 2 + placed[..., 1] * scale], axis=-1)
        return uv, scale


@dataclass(frozen=True, slots=True)
class Look:
    """Appearance of a recording, everything visible except motion.

    Attributes:
        colours: (materials, 3) visible colour, 0..1.
        reflectances: (materials,) in the near infrared, 0..1, independent of the colours and of the kind of object.
        stripes: Number of stripes on the shirt, 0 for none.
        long_hair: Scale of the hair.
        room: Seed of the room.
        brightness: Brightness of the visible light, 0..1.5; moderate, so that colours are preserved.
        flicker: Relative amplitude of the light's slow change.
        tint: (3,) colour of the light.
        light_side: -1 from the left of the image .. 1 from the right.
        phases: (4,) radians.
        illumination: Near-infrared value of a white surface at the figure's distance, 0..255.
        shot: Variance of the near-infrared shot noise per unit of value, at 120 lines.
        read: Standard deviation of the near-infrared read noise, at 120 lines; in visible light it is half of that.
        blur: Standard deviation of the near-infrared lens's blur, pixels at 120 lines.
    """

    colours: Array
    reflectances: Array
    stripes: int
    long_hair: float
    room: int
    brightness: float
    flicker: float
    tint: Array
    light_side: float
    phases: Array
    illumination: float
    shot: float
    read: float
    blur: float

    @classmethod
    def draw(cls, rng: np.random.Generator, *, distance: float) -> Look:
        """Draw a random appearance for a camera at this distance, metres."""
        colours, reflectances = _materials(rng)
        return cls(
            colours=colours,
            reflectances=reflectances,
            stripes=int(rng.choice([0, 3, 5])),
            long_hair=rng.uniform(1.0, 1.25),
            room=int(rng.integers(1 << 31)),
            brightness=rng.uniform(0.55, 1.05),
            flicker=rng.uniform(0.01, 0.08),
            tint=1 + rng.uniform(-0.08, 0.08, 3),
            light_side=rng.uniform(-1, 1),
            phases=rng.uniform(0, 2 * np.pi, 4),
            illumination=rng.uniform(190, 300) * (2.2 / distance) ** 0.8,
            shot=rng.uniform(0.7, 1.6),
            read=rng.uniform(2.0, 5.0),
            blur=rng.uniform(1.3, 2.0),
        )


def _materials(rng: np.random.Generator) -> tuple[Array, Array]:
    """Colours and reflectances of all materials, in the order of ``MATERIALS``."""
    at = {name: i for i, name in enumerate(MATERIALS)}
    colours = _muted(rng.uniform(0.05, 0.85, (len(MATERIALS), 3)), 0.3)
    colours[at["trousers"]] *= 0.5  # dark, as most are
    for kind, usual in OBJECT_COLOURS.items():  # enamel, plastic and rubber are more colourful than cloth
        colours[at[kind]] = np.array(usual) * rng.uniform(0.8, 1.2) + rng.normal(0, 0.04, 3)
    # Dyes, plastics and enamel reflect most of the near infrared: objects of any colour are as bright as skin.
    reflectances = rng.uniform(0.44, 0.66, len(MATERIALS))
    reflectances[at["chair"]] = rng.uniform(0.2, 0.85)
    colours[at["skin"]] = np.array([0.92, 0.70, 0.56]) * rng.uniform(0.4, 1.05)
    reflectances[at["skin"]] = rng.uniform(0.5, 0.62)  # skin of any colour is bright around 850 nm
    colours[at["hair"]] = np.array([0.35, 0.25, 0.15]) * rng.uniform(0.2, 1.9)
    reflectances[at["hair"]] = rng.uniform(0.25, 0.5)
    # Sleeves differ in colour from the trunk, light on dark or dark on light, but not in the infrared.
    shade = colours[at["shirt"]].mean()
    colours[at["arm"]] *= (shade - 0.35 if shade > 0.5 else shade + 0.35) / colours[at["arm"]].mean()
    reflectances[at["arm"]] = reflectances[at["shirt"]]
    for part, cloth, bare in (("sleeve", "arm", 0.7), ("shin", "trousers", 0.2)):
        source = at["skin"] if rng.random() < bare else at[cloth]
        colours[at[part]], reflectances[at[part]] = colours[source], reflectances[source]
    reflectances[at["stripe"]] = reflectances[at["shirt"]] * rng.uniform(0.92, 1.08)  # a print nearly vanishes
    return np.clip(colours, 0.02, 1), reflectances


@dataclass(frozen=True, slots=True)
class Room:
    """Pictures of the empty room: (H, W, 3) uint8 in visible colour, and (H, W) uint8 in the near infrared."""

    rgb: npt.NDArray[np.uint8]
    nir: npt.NDArray[np.uint8]


def build_room(camera: Camera, look: Look, height: int, width: int) -> Room:
    """Draw wall, floor, clutter and a chair in both bands, once per recording."""
    cv2 = import_extra("cv2", "cpu")
    rng = np.random.Generator(np.random.PCG64(look.room))
    rgb = np.empty((height, width, 3), dtype=np.float32)
    albedo = np.empty((height, width), dtype=np.float32)
    wall_z = camera.distance + rng.uniform(0.6, 2.0)
    horizon = height / 2 + camera.height * camera.focal * width / wall_z  # where the wall meets the floor
    rows = np.arange(height, dtype=np.float32)
    depth = np.full(height, wall_z, dtype=np.float32)
    floor = rows > horizon
    depth[floor] = camera.height * camera.focal * width / (rows[floor] + 0.5 - height / 2)
    wall_colour, floor_colour = _muted(rng.uniform(0.7, 0.95, 3), 0.5), _muted(rng.uniform(0.3, 0.7, 3), 0.3)
    rgb[:], albedo[:] = wall_colour, rng.uniform(0.5, 0.85)  # paint is bright in both bands
    rgb[floor], albedo[floor] = floor_colour, rng.uniform(0.2, 0.6)
    for _ in range(int(rng.integers(0, 5))):  # doors, posters, shelves
        w, h = rng.uniform(0.06, 0.35) * width, rng.uniform(0.1, 0.6) * height
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(-0.1, 0.6) * height
        corners = (int(x), int(y)), (int(x + w), int(y + h))
        cv2.rectangle(rgb, *corners, _muted(rng.uniform(0.3, 0.9, 3), 0.3).tolist(), -1)
        cv2.rectangle(albedo, *corners, float(rng.uniform(0.2, 0.85)), -1)
    grain = cv2.resize(rng.normal(0, 1, (height // 6, width // 6)).astype(np.float32), (width, height))
    texture: Float32 = 1 + np.float32(rng.uniform(0.01, 0.04)) * grain
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(0.25 * look.light_side)
    rgb *= (texture * (1 + across))[:, :, None]
    albedo *= 1 + (texture - 1) * np.float32(0.5)
    nir = look.illumination * albedo * (camera.distance / depth[:, None]) ** 2
    room = Room(np.clip(rgb * 255, 0, 255).astype(np.uint8), np.clip(nir, 0, 255).astype(np.uint8))
    _draw_chair(room, camera, look)
    return room


def _muted(colours: Array, saturation: float | Array) -> Array:
    """Reduce the saturation: rooms are less colourful than clothes, and clothes less than painted objects."""
    grey = colours.mean(axis=-1, keepdims=True)
    muted: Array = grey + (colours - grey) * saturation
    return muted


def _draw_chair(room: Room, camera: Camera, look: Look) -> None:
    """Draw a chair behind the figure's feet."""
    cv2 = import_extra("cv2", "cpu")
    height, width = room.nir.shape
    half, front, back, top = 0.23, -SEAT_BACK + 0.24, -SEAT_BACK - 0.22, 0.9
    legs = [[[x, 0, z], [x, SEAT_HEIGHT, z]] for x in (-half, half) for z in (front, back)]
    rest = [[-half, 0.55, back], [half, 0.55, back], [half, top, back], [-half, top, back]]
    seat = [[x, SEAT_HEIGHT, z] for x, z in ((-half, front), (half, front), (half, back), (-half, back))]
    chair = MATERIALS.index("chair")
    for shape, shade in ((rest, 0.75), *((leg, 0.55) for leg in legs), (seat, 1.0)):
        placed = camera.place(np.array(shape, dtype=np.float64))
        uv, scale = camera.project(placed, height, width)
        points = np.round(uv * (1 << SHIFT)).astype(np.int32)
        near = look.illumination * (camera.distance / float(placed[:, 2].mean())) ** 2
        value = float(min(255.0, look.reflectances[chair] * near * shade))
        colour = (look.colours[chair] * 255 * shade).tolist()
        if len(shape) == 2:
            thickness = max(1, round(0.04 * float(scale.mean())))
            cv2.line(room.rgb, points[0].tolist(), points[1].tolist(), colour, thickness, cv2.LINE_AA, SHIFT)
            cv2.line(room.nir, points[0].tolist(), points[1].tolist(), value, thickness, cv2.LINE_AA, SHIFT)
        else:
            cv2.fillPoly(room.rgb, [points], colour, cv2.LINE_AA, SHIFT)
            cv2.fillPoly(room.nir, [points], value, cv2.LINE_AA, SHIFT)
