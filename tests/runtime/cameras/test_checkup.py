"""What a camera does for ten seconds, and what follows from it. Time is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sklearn

from kd_edge.errors import BadPictureError, CameraError
from kd_edge.health import PictureBounds
from kd_edge.preprocess import Preprocess
from kd_edge.runtime.cameras.advice import Advice, advise, diagnose
from kd_edge.runtime.cameras.checkup import Checkup, examine
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.cameras.dots import dots_per_1000
from kd_edge.types import Frame
from kd_edge.window import FixedWindow, PercentileWindow
from tests.runtime.cameras.senders import encoded, mjpeg_server, steadily
from tests.runtime.conftest import HandClock, tiny_manifest

SIZE = (120, 160)


def scene(seed: int = 0, level: int = 60, kind: type = np.uint8) -> np.ndarray:
    """A slope with noise."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0.5 * level, 1.5 * level, SIZE[1])[None, :] + np.zeros((SIZE[0], 1))
    return np.clip(slope + rng.normal(0, 2, SIZE), 0, np.iinfo(kind).max).astype(kind)


def projected(picture: np.ndarray, count: int, height: float, seed: int = 9) -> np.ndarray:
    """The picture with so many dots of 3 x 3 pixels on it."""
    rng, lit = np.random.default_rng(seed), picture.astype(np.float64)
    shape = height * np.array([[0.4, 0.7, 0.4], [0.7, 1.0, 0.7], [0.4, 0.7, 0.4]])
    for y, x in zip(rng.integers(1, SIZE[0] - 1, count), rng.integers(1, SIZE[1] - 1, count), strict=True):
        lit[y - 1 : y + 2, x - 1 : x + 2] = np.maximum(lit[y - 1 : y + 2, x - 1 : x + 2], lit[y, x] + shape)
    return np.clip(lit, 0, np.iinfo(picture.dtype).max).astype(picture.dtype)


@dataclass
class Shown:
    """One frame of a scripted camera: when it comes, and what it bears."""

    image: Any
    after_ms: float = 100.0
    stamp_ns: Any = None  # None: the moment it comes


class Scripted:
    """A live camera that gives what it is told to, by the clock of the test."""

    name, band, dtype, channels, fps = "scripted", "nir", "uint8", 1, 10.0
    live, can_vanish, ended = True, True, False

    def __init__(self, clock: HandClock, frames: Iterable[Shown | Exception]) -> None:
        self.clock, self.frames, self.count = clock, iter(frames), 0
        self.waiting: Shown | None = None
        self.due_ns = clock.ns

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, timeout_seconds: float) -> Frame | None:
        if self.waiting is None:
            self.waiting = next(self.frames, None)
            if isinstance(self.waiting, Exception):
                fault, self.waiting = self.waiting, None
                raise fault
            if self.waiting is not None:
                self.due_ns += round(self.waiting.after_ms * 1e6)
        end_ns = self.clock.ns + round(timeout_seconds * 1e9)
        if self.waiting is None or self.due_ns > end_ns:
            self.clock.ns = end_ns
            return None
        self.clock.ns, shown, self.waiting = max(self.clock.ns, self.due_ns), self.waiting, None
        self.count += 1
        stamp_ns = self.clock.ns if shown.stamp_ns is None else shown.stamp_ns
        return Frame(shown.image, stamp_ns, self.count - 1, self.name)


@pytest.fixture
def watch() -> Callable[..., Checkup]:
    """``watch(frames)``: a check-up of 5 s."""

    def run(make: Callable[[HandClock], Iterable[Shown | Exception]], manifest: Any = None, **changes: Any) -> Checkup:
        clock = HandClock()
        camera = Scripted(clock, make(clock))
        for name, value in changes.items():
            setattr(camera, name, value)
        return examine(camera, 5.0, manifest, clock)

    return run


def many(*pictures: np.ndarray, **more: Any) -> Callable[[HandClock], Iterable[Shown]]:
    return lambda clock: (Shown(pictures[k % len(pictures)], **more) for k in range(1000))


def of(found: list[Advice], topic: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.level, one.found, one.lines) for one in found if one.topic == topic]


V4L2 = CameraConfig(uri="v4l2:/dev/video0")
REALSENSE = CameraConfig(uri="realsense:")


def test_a_good_camera_is_told_so_with_figures(watch) -> None:
    seen = watch(many(scene(0), scene(1)))
    assert (seen.frames, seen.damaged, seen.repeated, seen.fault, seen.sizes) == (51, 0, 0, "", 1)
    assert seen.arrivals == seen.captures
    assert (seen.arrivals.fps, seen.arrivals.period_ms) == (pytest.approx(10), 100)
    assert (seen.arrivals.jitter_ms, seen.arrivals.gaps) == (0, 0)
    assert (seen.stamps.looks_like, seen.stamps.age_ms, seen.stamps.steps) == ("monotonic", (0, 0, 0), 0)
    assert (seen.dtype, seen.size_px, seen.channels) == ("uint8", SIZE, 1)
    assert sum(seen.values.histogram) == pytest.approx(1)
    assert len(seen.values.histogram) == 32
    assert {one.level for one in advise(seen, V4L2)} == {"ok"}


def test_rate_jitter_and_gaps(watch) -> None:
    late = lambda clock: (Shown(scene(k % 3), after_ms=300 if k % 10 == 9 else 100) for k in range(1000))  # noqa: E731
    seen = watch(late, fps=30.0)
    assert (seen.arrivals.period_ms, seen.arrivals.longest_ms, seen.arrivals.gaps) == (100, 300, 4)
    rate, gaps, unsteady = of(advise(seen, V4L2), "rate")
    assert rate[0] == "problem"
    assert "8.4 frames/s, nominal 30.0; usual distance 100.0 ms" in rate[1]
    assert rate[2] == ("fps = 8.4",)
    assert gaps[1].startswith("4 of 43 frames came after a gap")
    assert unsteady[1] == "stamps jitter by 200.0 ms"
    over_network = [one.fix for one in advise(seen, CameraConfig(uri="rtsp://host/ir")) if one.topic == "rate"]
    assert not any("USB" in fix or "driver" in fix for fix in over_network[1:])
    assert 'clock = "device"' in over_network[-1]


def test_a_sensor_slower_than_its_stream_repeats_pictures(watch) -> None:
    doubled = lambda clock: (Shown(scene(k // 2)) for k in range(1000))  # noqa: E731
    seen = watch(doubled)
    assert (seen.frames, seen.repeated) == (51, 25)
    assert of(advise(seen, V4L2), "rate")[1] == (
        "problem", "49% of the pictures repeat the one before: 5.1 different ones a second", ("fps = 5.1",),
    )  # fmt: skip


STAMPS: dict[str, tuple[Callable[[HandClock, int], Any], str, dict[str, int], tuple[str, ...]]] = {
    "35 ms old": (lambda clock, k: clock.ns + 65_000_000, "monotonic", {}, ()),
    "time of day": (lambda clock, k: clock.wall_ns() + 60_000_000, "wall", {}, ('clock = "wall"',)),
    "of the device": (lambda clock, k: (1 << 50) + 100_000_000 * k, "device", {}, ('clock = "device"',)),
    "all 0": (lambda clock, k: 0, "arrival", {"repeated": 50}, ('clock = "arrival"',)),
    "a counter": (lambda clock, k: k, "arrival", {}, ('clock = "arrival"',)),
    "not a number": (lambda clock, k: float("nan"), None, {"unusable": 51}, ('clock = "arrival"',)),
    "one step": (
        lambda clock, k: clock.ns + 100_000_000 - (3_000_000_000 if k > 30 else 0),
        "monotonic", {"steps": 1, "backward": 1}, ('clock = "arrival"',),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STAMPS)
def test_which_clock_stamps_are_of(watch, case: str) -> None:
    stamp, looks_like, counts, lines = STAMPS[case]
    frames = lambda clock: (Shown(scene(k % 3), stamp_ns=stamp(clock, k)) for k in range(1000))  # noqa: E731
    seen = watch(frames)
    assert seen.stamps.looks_like == looks_like
    names = ("repeated", "backward", "steps", "unusable")
    assert {name: getattr(seen.stamps, name) for name in names if getattr(seen.stamps, name)} == counts
    (found,) = of(advise(seen, V4L2), "stamps")
    assert found[2] == lines
    assert (found[0] == "ok") == (not lines)
    if case == "35 ms old":
        assert seen.stamps.age_ms == (35, 35, 35)


def test_a_realsense_has_a_clock_of_its_own_and_no_line_for_it(watch) -> None:
    frames = lambda clock: (Shown(scene(k % 3), stamp_ns=clock.wall_ns()) for k in range(1000))  # noqa: E731
    seen = watch(frames, clock_kind="device")
    assert (seen.stamps.declared, seen.stamps.looks_like) == ("device", "wall")
    assert of(advise(seen, REALSENSE), "stamps")[0][0] == "ok"


def test_stamps_that_are_not_used_are_nobodys_trouble(watch) -> None:
    seen = watch(lambda clock: (Shown(scene(k % 3), stamp_ns=0) for k in range(1000)), clock_kind="arrival")
    assert of(advise(seen, V4L2), "stamps") == [
        ("ok", "not used; stamps look like clock 'arrival'; 50 repeat the one before", ())
    ]


def test_dark_and_bright_pictures(watch) -> None:
    dark = watch(many(np.zeros(SIZE, np.uint8), np.eye(*SIZE, dtype=np.uint8) * 40))
    assert dark.values.black == pytest.approx(1, abs=0.01)
    ((level, told, lines),) = of(advise(dark, REALSENSE), "light")
    assert (level, lines) == ("problem", ("exposure_us = 15000", "gain = 64"))
    assert "% black" in told
    glare = scene()
    glare[:30] = 255
    bright = watch(many(glare, np.roll(glare, 1, axis=1)))
    assert bright.values.saturated == pytest.approx(0.25, abs=0.01)
    assert of(advise(bright, V4L2), "light")[0][0] == "problem"
    assert of(advise(bright, V4L2), "light")[0][2] == ()  # a V4L2 camera has no such key


@pytest.mark.parametrize(("largest", "full"), [(900, 1023), (1023, 1023), (8500, 16383), (200, 255), (60_000, 65535)])
def test_the_scale_of_16_bits_follows_the_values(watch, largest: int, full: int) -> None:
    picture = np.full(SIZE, largest // 2, np.uint16)
    picture[:12] = largest
    seen = watch(many(picture, picture[::-1].copy()), dtype="uint16", band="lwir")
    assert seen.values.full_scale == full
    assert seen.values.saturated == pytest.approx(0.1 if largest == full else 0)
    assert seen.values.dots_per_1000 is None  # what is warm is no dot


def test_holes_of_a_depth_camera_are_no_darkness(watch) -> None:
    """A depth camera gives 0 where it measures nothing; its band is its own, or that of the model it suits."""
    picture = np.zeros(SIZE, np.uint16)
    picture[:12] = 2000
    pictures = many(picture, picture[::-1].copy())
    unsaid = watch(pictures, dtype="uint16", band=None)
    ((level, _, lines),) = of(advise(unsaid, V4L2), "light")
    (advice,) = (one for one in advise(unsaid, V4L2) if one.topic == "light")
    assert (level, lines) == ("problem", ())
    assert advice.fix.endswith('if it measures depth, set band = "depth"')
    for band, manifest in (("depth", None), (None, tiny_manifest(band="depth"))):
        seen = watch(pictures, manifest, dtype="uint16", band=band)
        assert seen.band == "depth"
        assert of(advise(seen, V4L2), "light")[0][0] == "ok"
        assert seen.values.dots_per_1000 is None


def textures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    squares = np.kron(np.indices((12, 16)).sum(axis=0) % 2, np.ones((10, 10))).astype(np.uint8) * 200
    lines = np.zeros(SIZE, np.uint8)
    lines[::6] = 200
    return {
        "slope": scene(),
        "noise": rng.integers(0, 256, SIZE, dtype=np.uint8),
        "blurred noise": cv2.GaussianBlur(rng.integers(0, 256, SIZE, dtype=np.uint8), (9, 9), 2),
        "squares": squares,
        "lines": lines,
        "glare": cv2.circle(scene(), (80, 60), 30, 255, -1),
        "black": np.zeros(SIZE, np.uint8),
        "white": np.full(SIZE, 255, np.uint8),
        "roofs and leaves": cv2.imread(f"{Path(sklearn.__file__).parent}/datasets/images/china.jpg", 0),
    }


@pytest.mark.parametrize("name", textures())
def test_textures_are_no_dots(name: str) -> None:
    assert dots_per_1000(textures()[name]) < 0.5


@pytest.mark.parametrize(
    ("kind", "level", "height"), [(np.uint8, 60, 60), (np.uint8, 10, 25), (np.uint16, 300, 200), (np.uint16, 8000, 900)]
)
def test_projected_dots_are_seen(kind: type, level: int, height: float) -> None:
    """Twelve in 1000 pixels, as a D435 draws; many of them stand too close to each other to be told apart."""
    picture = scene(level=level, kind=kind)
    assert dots_per_1000(picture) < 0.1
    assert dots_per_1000(projected(picture, 230, height)) > 3


@pytest.mark.parametrize(
    ("uri", "lines"),
    [("realsense:", ('emitter = "off"',)), ("v4l2:/dev/video2", ('uri = "realsense:"',)), ("replay:a.mkv", ())],
)
def test_a_projector_is_told_with_what_turns_it_off(watch, uri: str, lines: tuple[str, ...]) -> None:
    seen = watch(many(projected(scene(0), 230, 60), projected(scene(1), 230, 60)))
    ((level, _, found),) = of(advise(seen, CameraConfig(uri=uri)), "emitter")
    assert (level, found) == ("problem", lines)


def test_flicker_and_a_frozen_picture(watch) -> None:
    seen = watch(many(scene(0, 60), scene(1, 60), scene(2, 75)))
    assert (seen.values.jumps, seen.frames) == (34, 51)
    assert seen.values.largest_jump == pytest.approx(0.25, abs=0.01)
    ((level, told, lines),) = of(advise(seen, REALSENSE), "brightness")
    assert (level, lines) == ("problem", ("exposure_us = 10000", "gain = 16"))
    assert "it jumps at 34 of 50 frames" in told
    frozen = watch(many(scene()))
    assert (frozen.repeated, frozen.longest_same_ms) == (50, 5000)
    assert of(advise(frozen, V4L2), "frozen") == [
        ("problem", "one picture stayed for 5000 ms: from 2000 ms on it is frozen", ("frozen_ms = 10000",))
    ]


def test_silence_damage_and_loss_end_in_figures(watch) -> None:
    assert of(advise(watch(lambda clock: []), V4L2), "frames") == [("problem", "0 frames in 5.5 s", ())]
    bad = BadPictureError("camera: a damaged picture", "a whole one", "cable")
    damaged = watch(lambda clock: (bad if k % 3 == 0 else Shown(scene(k)) for k in range(1000)))
    assert damaged.damaged >= 20
    assert of(advise(damaged, V4L2), "frames")[0][0] == "problem"
    lost = watch(
        lambda clock: [*(Shown(scene(k)) for k in range(20)), CameraError("camera is\x1b gone", "it", "cable")]
    )
    assert (lost.frames, lost.fault) == (16, "camera is\\x1b gone")
    assert of(advise(lost, V4L2), "frames")[0][1].endswith("then: camera is\\x1b gone")


def test_a_bug_in_a_camera_is_in_the_log_with_its_traceback(watch, caplog) -> None:
    bug = KeyError("exposure")
    assert watch(lambda clock: [Shown(scene()), bug]).fault == "'exposure'"
    (trace,) = caplog.records
    assert (trace.levelname, trace.exc_info[1]) == ("ERROR", bug)
    assert watch(lambda clock: [Shown(scene()), RuntimeError("USB")]).fault == "USB"
    assert len(caplog.records) == 1


BOUNDS = PictureBounds(
    mean=40, contrast=5, saturated=0.1, measured=0, grain=2, sharpness=0, noise=1, moves=True, saturation=250,
    clips=1, frames=1,
)  # fmt: skip


def test_pictures_are_compared_with_those_of_training(watch) -> None:
    spec = Preprocess(resize_px=60, input_px=48, window=FixedWindow(low=50, high=200))
    manifest = tiny_manifest(preprocess=spec, health=BOUNDS)
    fine = watch(many(scene(0, 100), scene(1, 100)), manifest)
    assert (fine.match.judged, fine.match.can_judge) == ({}, True)
    assert fine.match.below == pytest.approx(0.01, abs=0.02)
    topic = "pictures for the model"
    assert of(advise(fine, V4L2, manifest), topic)[0][0] == "ok"
    dim = watch(many(scene(0, 30), scene(1, 30)), manifest)
    assert dim.match.below > 0.9
    assert dim.match.judged["dark"] > 0.8
    told = of(advise(dim, V4L2, manifest), topic)
    assert told[0][1].startswith("'tiny' rates ")
    assert "as dark: mean 29.6 below 40" in told[0][1]
    assert "of the values lie below the window of 'tiny', 50 to 200, 0% above" in told[1][1]
    follows = tiny_manifest(value_range=(0, 50), preprocess=spec.model_copy(update={"window": PercentileWindow()}))
    seen = watch(many(scene(0, 100), scene(1, 100)), follows)
    assert seen.match.above > 0.95
    told = of(advise(seen, V4L2, follows), topic)
    assert told[0][1].endswith("0% of the values lie below the values known to 'tiny', 0 to 50, 98% above")


def test_a_rate_that_the_model_cannot_use(watch) -> None:
    seen = watch(many(scene(0), scene(1), after_ms=150.0))
    ((level, told, _),) = of(advise(seen, V4L2, tiny_manifest()), "rate for the model")
    assert level == "problem"
    assert told.startswith("6.7 frames/s; 'tiny' needs at least 10.0 frames/s")


def test_every_kind_of_camera(tmp_path) -> None:
    manifest = tiny_manifest()
    np.save(tmp_path / "clip.npy", np.stack([scene(k) for k in range(90)]))
    recorded = diagnose(f"replay:{tmp_path}/clip.npy", 2.0, manifest, HandClock())
    assert (recorded.measured.live, recorded.measured.frames) == (False, 61)
    assert (recorded.measured.seconds, recorded.measured.stamps, recorded.measured.arrivals) == (2.0, None, None)
    assert recorded.measured.captures.fps == pytest.approx(30)
    figure = diagnose("synthetic:?height_px=48&width_px=64", 2.0, manifest, HandClock())
    assert (figure.measured.frames, figure.measured.stamps.looks_like, figure.level) == (61, "monotonic", "note")
    assert [one.topic for one in figure.advice if one.level == "note"] == ["pictures for the model"]  # has no bounds


@pytest.mark.slow
def test_a_network_camera_whose_stamps_are_of_another_rate_than_it_sends(tmp_path) -> None:
    """FFmpeg's reader of MJPEG counts 25 frames a second, whatever comes; a busy machine sends fewer still."""
    pictures = [encoded(np.repeat(scene(k)[:, :, None], 3, axis=2)) for k in range(5)]
    with mjpeg_server({"live": steadily(pictures, fps=10)}) as server:
        address = f"127.0.0.1:{server.server_address[1]}/live"
        found = diagnose(f"http://me:secret@{address}#clock=device", 1.5, tiny_manifest())
    assert found.uri.endswith(f"@{address}#clock=device") or found.uri.endswith(f"@{address}")
    assert "secret" not in repr(found)
    assert of(list(found.advice), "stamps") == [("problem", "stamps look like clock 'arrival'", ('clock = "arrival"',))]


def test_a_camera_for_another_model_is_watched_and_not_judged_by_it(tmp_path) -> None:
    np.save(tmp_path / "clip.npy", np.stack([scene(k, kind=np.uint16) for k in range(30)]))
    found = diagnose(f"replay:{tmp_path}/clip.npy", 2.0, tiny_manifest(health=BOUNDS), HandClock())
    assert found.level == "problem"
    assert found.advice[0].found.startswith("camera clip.npy has dtype uint16, not dtype uint8")
    assert found.measured.match is None
