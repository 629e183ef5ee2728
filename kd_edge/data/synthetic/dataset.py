"""A generated data set and an endless stream: an articulated figure performs ten actions, in paired RGB and NIR.

In the data set the figure also wears a watch and carries a phone.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import ImageFormat, Sample, SignalFormat, Split, require_modality
from kd_edge.data.splits import check_split, require_split, split_by_subject
from kd_edge.data.synthetic import worn_sensors
from kd_edge.data.synthetic.actions import ACTIONS, LABELS, Manner, join, perform
from kd_edge.data.synthetic.figure import Array, Body
from kd_edge.data.synthetic.render import VERSION, Film
from kd_edge.data.synthetic.scene import VIEWS, Camera, Look
from kd_edge.errors import ConfigError, DataError, did_you_mean
from kd_edge.packages import import_extra
from kd_edge.types import Clip, Int64

MODALITIES = ("rgb", "nir")
SKELETON = "skeleton"


def generator(*key: object) -> np.random.Generator:
    """Return a random generator that depends only on the key."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class _Take(NamedTuple):
    """Random parameters of one clip."""

    action: str
    body: Body
    manner: Manner
    camera: Camera
    look: Look
    frames: int
    seed: int


class Synthetic:
    """A generated data set; every clip depends only on ``seed`` and the id of its sample.

    A trial of a subject is a session: all ten actions in the same clothes, room and light, in front of the same camera,
    so that the classes differ only in the action and its object.

    Modalities: ``rgb`` (T, H, W, 3) uint8 and ``nir`` (T, H, W) uint8 of the same motion from the same position;
    ``skeleton`` (T, 20, 3) float32, the figure's joints in metres in the camera's frame, x to the right of the picture,
    y up, z away, in the order of ``kd_edge.data.synthetic.figure``; ``accelerometer`` (g) and ``gyroscope`` (degree/s)
    of a watch on the acting hand, and ``accelerometer_phone`` (g) of a phone in the right pocket, each (T, 3) float32
    at 100 Hz, see ``kd_edge.data.synthetic.worn_sensors``.

    Args:
        clips_per_class: Clips of each action, dealt evenly over the subjects.
        subjects: Number of different bodies.
        seed: Seed of everything random.
        height_px: Image height.
        width_px: Image width.
        fps: Frame rate, 1/s.
    """

    name = "synthetic"
    labels = LABELS
    modalities = (*MODALITIES, SKELETON, *worn_sensors.SENSORS)
    sensors = tuple(worn_sensors.SENSORS)
    flip_labels: tuple[int, ...] | None = tuple(range(len(LABELS)))

    def __init__(
        self,
        clips_per_class: int = 48,
        subjects: int = 12,
        seed: int = 0,
        height_px: int = 120,
        width_px: int = 160,
        fps: float = 30.0,
    ) -> None:
        self._seed, self._size, self._fps = seed, (height_px, width_px), fps
        self._subjects = [f"{i + 1}" for i in range(min(subjects, clips_per_class))]
        self.samples = tuple(self._sample(label, i) for label in range(len(LABELS)) for i in range(clips_per_class))

    def _sample(self, label: int, i: int) -> Sample:
        subject, trial = self._subjects[i % len(self._subjects)], i // len(self._subjects) + 1
        view = tuple(VIEWS)[(trial + i % len(self._subjects)) % len(VIEWS)]
        return Sample(f"a{label + 1}_s{subject}_t{trial}", subject, view, f"{trial}", label)

    def film(self, sample: Sample) -> Film:
        """Return the recording, which is painted frame by frame on demand."""
        take = self._take(sample)
        performance = perform(take.action, take.body, take.manner, np.arange(take.frames) / self._fps)
        return Film(performance, take.body, take.look, take.camera, *self._size, self._fps, take.seed)

    def _take(self, sample: Sample) -> _Take:
        action, rng = LABELS[sample.label], generator("clip", self._seed, sample.id)
        body = Body.draw(generator("body", self._seed, sample.subject))
        manner, session = Manner.draw(rng, action), generator("session", self._seed, sample.subject, sample.trial)
        camera = Camera.draw(session, sample.view)
        look = Look.draw(session, distance=camera.distance)
        seconds = manner.seconds + manner.delay_s + rng.uniform(-0.08 * manner.seconds, 0.25)
        frames = max(8, round(seconds * self._fps))
        return _Take(action, body, manner, camera, look, frames, int(rng.integers(1 << 31)))

    def open(self, sample: Sample, modality: str) -> Clip:
        """Paint or measure one clip; see ``Dataset.open``."""
        require_modality(modality, self.modalities, self.name)
        if modality in worn_sensors.SENSORS:
            return self._signal(sample, modality)
        if modality == SKELETON:
            return self._skeleton(sample)
        film = self.film(sample)
        paint = film.rgb if modality == "rgb" else film.nir
        frames = np.stack([paint(k) for k in range(len(film))])
        return Clip(frames, self._stamps(len(film)))

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the generator's parameters and version; see ``Dataset.content_key``."""
        key = [VERSION, self._seed, *self._size, self._fps, sample.id, sample.view, modality]
        if modality in worn_sensors.SENSORS:
            key.append(worn_sensors.VERSION)
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        if modality not in MODALITIES:
            raise DataError(f"modality '{modality}' of {self.name} is a signal", "an image modality", "use rgb or nir")
        if modality == "rgb":
            return ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), self._fps)
        return ImageFormat("nir", "uint8", 1, "intensity", (0.0, 255.0), self._fps)

    def signal_format(self, sensor: str) -> SignalFormat:
        """See ``Wearables.signal_format``."""
        require_modality(sensor, self.sensors, self.name)
        return worn_sensors.SENSORS[sensor].signal_format

    def _stamps(self, frames: int) -> Int64:
        stamps: Int64 = np.round(np.arange(frames) * 1e9 / self._fps).astype(np.int64)
        return stamps

    def _skeleton(self, sample: Sample) -> Clip:
        """Exact joints of the figure in the pictures, including hidden ones."""
        take = self._take(sample)
        performance = perform(take.action, take.body, take.manner, np.arange(take.frames) / self._fps)
        placed = take.camera.place(performance.joints) * [1, -1, 1]  # a camera's y points down
        return Clip(placed.astype(np.float32), self._stamps(take.frames))

    def _signal(self, sample: Sample, name: str) -> Clip:
        """Signal of a worn sensor during the clip; each subject wears it slightly rotated."""
        take, sensor = self._take(sample), worn_sensors.SENSORS[name]

        def joints(times_s: Array) -> Array:
            return perform(take.action, take.body, take.manner, times_s).joints

        roll = generator("worn", self._seed, sample.subject, sensor.place).normal(0, 0.15)
        values, stamps = worn_sensors.measure(
            sensor, joints, (take.frames - 1) / self._fps, left_handed=take.manner.left_handed, roll=roll
        )
        return Clip(worn_sensors.with_faults(values, sensor, generator("faults", self._seed, sample.id, name)), stamps)

    def gaps(self) -> dict[str, str]:
        """See ``Dataset.gaps``; always empty, because generated data is complete."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """See ``Dataset.remarks``; always empty."""
        return ()

    def splits(self) -> tuple[str, ...]:
        """``subjects``: the last quarter of the subjects is the test side; ``odd_even``: every second one is."""
        return ("subjects", "odd_even")

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        last_quarter = self._subjects[-max(1, round(len(self._subjects) / 4)) :]
        test = {"subjects": last_quarter, "odd_even": self._subjects[1::2]}[name]
        split = split_by_subject(name, self.samples, test)
        check_split(split, self.labels)
        return split


class SyntheticStream:
    """An endless recording: a figure repeats one action for eight seconds and continues with the next.

    Frames are reproducible and can be requested in any order. After all actions another person takes over; none of them
    is a subject of a data set.

    Args:
        modality: ``"nir"`` or ``"rgb"``.
        seed: Seed of everything random.
        height: Image height, pixels.
        width: Image width, pixels.
        fps: Frame rate, 1/s.
        actions: Actions to perform, in any order; None for all ten.
        block_seconds: Time for which one action is repeated.

    Raises:
        ConfigError: The modality or an action is unknown, or the size or rate is out of range.
    """

    def __init__(
        self,
        modality: str = "nir",
        seed: int = 0,
        height: int = 480,
        width: int = 640,
        fps: float = 30.0,
        actions: Sequence[str] | None = None,
        block_seconds: float = 8.0,
    ) -> None:
        self.actions = LABELS if actions is None else tuple(actions)
        for action in self.actions:
            _require("action", action, LABELS)
        _require("modality", modality, MODALITIES)
        if min(height, width) < 32 or not 1 <= fps <= 240 or block_seconds < 1 or not self.actions:
            raise ConfigError(
                f"a synthetic stream of {width}x{height} at {fps} fps with {len(self.actions)} actions",
                "at least 32x32, 1 to 240 fps, one action for a second",
                "correct the camera's address",
            )
        self.modality, self.height, self.width, self.fps = modality, height, width, fps
        self._seed = seed
        self._block = max(1, round(block_seconds * fps))
        self._shrink = max(1, height // 240)  # large pictures are painted small and enlarged
        self._film = functools.lru_cache(maxsize=1)(self._make_film)

    def truth(self, k: int) -> str:
        """Return the name of the action performed in frame k."""
        cycle, position = divmod(k // self._block, len(self.actions))
        order = generator("order", self._seed, cycle).permutation(len(self.actions))
        return self.actions[int(order[position])]

    def frame(self, k: int) -> tuple[npt.NDArray[np.uint8], str]:
        """Return frame k >= 0, (H, W) or (H, W, 3) uint8, and the name of the action performed."""
        film, truth = self._film(k // self._block)
        at = k % self._block
        image: npt.NDArray[np.uint8] = film.nir(at) if self.modality == "nir" else film.rgb(at)
        if self._shrink > 1:
            image = _enlarge(image, self.height, self.width)
        return image, truth

    def _make_film(self, block: int) -> tuple[Film, str]:
        truth = self.truth(block * self._block)
        cycle = block // len(self.actions)
        person, rng = generator("person", self._seed, cycle), generator("block", self._seed, block)
        body = Body.draw(person)
        camera = Camera.draw(person, tuple(VIEWS)[int(person.integers(len(VIEWS)))])
        look = Look.draw(person, distance=camera.distance)
        return self._repeated(truth, body, look, camera, rng, block * self._block), truth

    def _repeated(
        self, action: str, body: Body, look: Look, camera: Camera, rng: np.random.Generator, first: int
    ) -> Film:
        """Join several performances that fill a block into one film."""
        typical_s = sum(ACTIONS[action].seconds) / 2 + 0.15
        count = max(1, round(self._block / self.fps / typical_s))
        cuts = np.round(np.linspace(0, self._block, count + 1)).astype(int)
        takes, left = [], bool(rng.random() < 0.3)
        for start, stop in pairwise(cuts.tolist()):
            seconds = (stop - start) / self.fps
            manner = replace(Manner.draw(rng, action), seconds=seconds * 0.94, delay_s=seconds * 0.03, left_handed=left)
            takes.append(perform(action, body, manner, np.arange(stop - start) / self.fps))
        size = self.height // self._shrink, self.width // self._shrink
        return Film(join(takes), body, look, camera, *size, self.fps, self._seed, first)


def _require(name: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ConfigError(
            f"synthetic {name} '{given}'{did_you_mean(given, choices)}",
            f"one of {', '.join(choices)}",
            "correct the camera's address",
        )


def _enlarge(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    cv2 = import_extra("cv2", "cpu")
    enlarged: npt.NDArray[np.uint8] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return enlarged
