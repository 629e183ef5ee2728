"""RealSense infrared over the real librealsense, whose software device stands for the camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kd_edge.errors import CameraError, ConfigError
from kd_edge.runtime.cameras import Wanted, make_camera
from kd_edge.runtime.cameras.advice import diagnose
from kd_edge.runtime.cameras.base import focal_of
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.listing import list_cameras
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import LabelState
from tests.runtime.conftest import tiny_manifest

try:
    import pyrealsense2 as rs
except ImportError as error:  # also where libusb is missing
    pytest.skip(f"pyrealsense2: {error}", allow_module_level=True)

WIDTH, HEIGHT, FPS = 64, 48, 30


class Device:
    """A stereo module in software with one imager for each index."""

    def __init__(
        self, serial: str = "000000000001", formats: tuple[tuple[int, Any, int], ...] = (), fx_px: float = 40.0
    ) -> None:
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Soft D435")
        self.device.register_info(rs.camera_info.serial_number, serial)
        self.sensor = self.device.add_sensor("Stereo Module")
        for option, least, most in (
            (rs.option.emitter_enabled, 0, 2), (rs.option.enable_auto_exposure, 0, 1), (rs.option.gain, 16, 248),
        ):  # fmt: skip
            limits = rs.option_range()
            limits.min, limits.max, limits.step, limits.default = least, most, 1, least + 1
            self.sensor.add_option(option, limits, True)
        self.profiles = {
            (index, kind.name): self._stream(index, kind, size, fx_px)
            for index, kind, size in formats or ((1, rs.format.y8, 1), (2, rs.format.y8, 1), (1, rs.format.y16, 2))
        }
        self.device.create_matcher(rs.matchers.default)
        self.number = 0

    def _stream(self, index: int, kind: Any, size: int, fx_px: float) -> Any:
        inner = rs.intrinsics()
        inner.width, inner.height, inner.model, inner.coeffs = WIDTH, HEIGHT, rs.distortion.none, [0] * 5
        inner.fx = inner.fy = fx_px
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid = rs.stream.infrared, index, 100 + 10 * index + size
        stream.width, stream.height, stream.fps, stream.bpp, stream.fmt = WIDTH, HEIGHT, FPS, size, kind
        stream.intrinsics = inner
        return self.sensor.add_video_stream(stream, True)

    def push(self, image: np.ndarray, stamp_ms: float, index: int = 1, lit: int | None = None) -> None:
        frame = rs.software_video_frame()
        frame.bpp, frame.stride = image.itemsize, WIDTH * image.itemsize
        frame.frame_number, frame.timestamp, frame.domain = self.number, stamp_ms, rs.timestamp_domain.hardware_clock
        frame.pixels = np.ascontiguousarray(image).view(np.uint8)
        frame.profile = self.profiles[index, "y8" if image.itemsize == 1 else "y16"].as_video_stream_profile()
        if lit is not None:
            self.sensor.set_metadata(rs.frame_metadata_value.frame_laser_power_mode, lit)
        self.sensor.on_video_frame(frame)
        self.number += 1


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``attached(Device(), ...)``: what a context of librealsense finds."""
    kept: list[Any] = []

    def attach(*devices: Device) -> None:
        context = rs.context()
        context.set_devices_changed_callback(lambda event: kept.append(event.get_new_devices()))
        for each in devices:
            each.device.add_to(context)
        kept.extend((context, *devices))
        monkeypatch.setattr(rs, "context", lambda: context)

    yield attach
    kept.clear()


def camera(uri: str, **wanted: Any):
    return make_camera("ir", camera_config(uri), Wanted(**wanted))


def grey(value: int, kind: type = np.uint8) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, kind)


def read(opened: Any, device: Device, image: np.ndarray, stamp_ms: float, **more: Any):
    device.push(image, stamp_ms, **more)
    return opened.read(5.0)


@pytest.mark.parametrize(
    ("uri", "wanted", "kind", "index"),
    [
        ("realsense:", {}, np.uint8, 1),
        ("realsense:000000000001", {}, np.uint8, 1),
        ("realsense:?index=2", {}, np.uint8, 2),
        ("realsense:?pixel_format=Y16", {}, np.uint16, 1),
        ("realsense:", {"dtype": "uint16"}, np.uint16, 1),
    ],
)
def test_frames_of_one_imager_with_the_devices_stamps(attached, uri: str, wanted: dict, kind: type, index: int) -> None:
    device = Device()
    attached(device)
    opened = camera(uri, **wanted)
    opened.open()
    try:
        for number in range(20):  # more than librealsense lets anybody keep
            frame = read(opened, device, grey(number + 1, kind), 1000 + number * 1000 / FPS, index=index)
            assert frame.frame_id == number
            assert frame.captured_ns == round((1000 + number * 1000 / FPS) * 1e6)
            np.testing.assert_array_equal(frame.image, grey(number + 1, kind))
            assert (frame.image.dtype, frame.source) == (kind, "ir")
        assert (opened.fps, opened.channels, opened.band) == (FPS, 1, "nir")
        assert opened.dtype == np.dtype(kind).name
        assert opened.clock_kind == "device"
        assert opened.read(0.15) is None
    finally:
        opened.close()
        opened.close()
    with pytest.raises(CameraError, match="it is closed"):
        opened.read(0.1)


def test_the_projector_is_off_unless_asked_for_and_lit_frames_are_left_out(attached) -> None:
    device = Device()
    attached(device)
    opened = camera("realsense:?gain=32")
    opened.open()
    assert device.sensor.get_option(rs.option.emitter_enabled) == 0
    assert device.sensor.get_option(rs.option.gain) == 32
    assert device.sensor.get_option(rs.option.enable_auto_exposure) == 0
    opened.close()
    opened = camera("realsense:?emitter=on")
    opened.open()
    assert device.sensor.get_option(rs.option.emitter_enabled) == 1
    opened.close()
    limits = rs.option_range()
    limits.min, limits.max, limits.step, limits.default = 0, 1, 1, 0
    device.sensor.add_option(rs.option.emitter_on_off, limits, True)
    opened = camera("realsense:?emitter=alternating")
    opened.open()
    try:
        for number in range(6):
            device.push(grey(number), 1000 + number * 33, lit=number % 2)
            frame = opened.read(0.5)
            assert (frame is None) == bool(number % 2)
    finally:
        opened.close()


def test_an_alternating_projector_needs_frames_that_tell(attached) -> None:
    device = Device()
    limits = rs.option_range()
    limits.min, limits.max, limits.step, limits.default = 0, 1, 1, 0
    device.sensor.add_option(rs.option.emitter_on_off, limits, True)
    attached(device)
    opened = camera("realsense:?emitter=alternating")
    opened.open()
    try:
        with pytest.raises(CameraError, match="do not show whether the projector was on"):
            read(opened, device, grey(1), 1000)
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("realsense:123", r"no RealSense device with serial number 123\. Expected one of 000000000001"),
        (
            "realsense:?width_px=640&height_px=480",
            r"no infrared imager 1 of 640x480.*Expected one of 64x48 at 30 \(Y16\)",
        ),
        ("realsense:?index=2&pixel_format=Y16", r"no infrared imager 2 of anyxany at any frames/s \(Y16\)"),
        ("realsense:?gain=1000", r"gain 1000\. Expected 16 to 248"),
        ("realsense:?exposure_us=100", "has no exposure_us"),
        ("realsense:?emitter=alternating", "has no emitter"),
    ],
)
def test_what_the_device_lacks_is_one_line_and_nothing_stays_open(attached, uri: str, why: str) -> None:
    device = Device()
    attached(device)
    opened = camera(uri)
    with pytest.raises(CameraError, match=why):
        opened.open()
    again = camera("realsense:")
    again.open()
    assert read(again, device, grey(3), 1000).image[0, 0] == 3
    again.close()


def test_none_or_too_many_are_told_at_once(attached, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(rs, "pipeline")  # librealsense's own way waits for a device, for 15 s
        with pytest.raises(CameraError, match="no RealSense device is attached"):
            camera("realsense:").open()
    attached(Device(), Device("000000000002"))
    with pytest.raises(CameraError, match=r"2 RealSense devices are attached\. Expected the serial number of one"):
        camera("realsense:").open()
    opened = camera("realsense:000000000002")
    opened.open()
    opened.close()


def test_they_are_listed_with_the_line_that_uses_them(attached) -> None:
    attached(Device())
    (found,) = (each for each in list_cameras().attached if each.device.startswith("realsense:"))
    assert found.device == "realsense:000000000001"
    assert found.description == "Soft D435, firmware unknown"
    assert found.use == "kd-edge run --camera realsense:000000000001"
    assert [str(mode) for each in found.formats for mode in each.modes] == ["64x48 (30)"] * 2
    assert [each.name for each in found.formats] == ["Y8", "Y16"]
    assert found.camera_file.splitlines()[1:] == [
        'uri = "realsense:000000000001"', 'band = "nir"', 'pixel_format = "Y8"', "width_px = 64", "height_px = 48",
        "fps = 30",
    ]  # fmt: skip


def test_an_unplugged_device_is_gone_at_once(attached) -> None:
    device = Device()
    attached(device)
    opened = camera("realsense:")
    opened.open()
    assert read(opened, device, grey(1), 1000) is not None

    class Event:
        def was_removed(self, device: Any) -> bool:
            return True

    opened._changed(Event())
    with pytest.raises(CameraError, match="it was unplugged"):
        opened.read(5.0)
    opened.open()  # plugged in again
    assert read(opened, device, grey(2), 2000).image[0, 0] == 2
    opened.close()


def test_a_check_up_tells_the_projector_and_what_turns_it_off(attached) -> None:
    device, ended = Device(), threading.Event()
    attached(device)

    def deliver() -> None:
        rng, began = np.random.default_rng(0), time.monotonic()
        while not ended.wait(1 / FPS):
            image = rng.normal(60, 3, (HEIGHT, WIDTH)).astype(np.uint8)
            image[5::12, 5::9] = 200
            device.push(image, 1e6 + 1e3 * (time.monotonic() - began))

    delivers = threading.Thread(target=deliver)
    delivers.start()
    try:
        found = diagnose("realsense:?emitter=on", 1.0, tiny_manifest())
    finally:
        ended.set()
        delivers.join()
    lines = {one.topic: one.lines for one in found.advice}
    assert lines["emitter"] == ('emitter = "off"',)
    assert lines["stamps"] == ()
    assert found.measured.stamps.looks_like == "device"


def test_labels_come_of_it(attached, make_model) -> None:
    device = Device()
    attached(device)
    opened, states, given = camera("realsense:"), [], 0
    with LabelStream(make_model()[0], opened, StreamOptions()) as labels:
        start = time.monotonic()
        while len(states) < 30:
            device.push(
                np.random.default_rng(given).integers(0, 255, (HEIGHT, WIDTH), np.uint8), 5e6 + given * 1000 / FPS
            )
            given += 1
            prediction = next(labels)
            if prediction.state is not LabelState.STALE:
                states.append(prediction.state)
            time.sleep(max(0.0, start + given / FPS - time.monotonic()))
    assert LabelState.WARMING in states
    assert {LabelState.OK, LabelState.DEGRADED} & set(states)


def test_keys_of_other_cameras_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sets emitter, which no v4l2: camera has.*use them with realsense:"):
        camera_config("v4l2:/dev/video0?emitter=on")
    with pytest.raises(ConfigError, match="sets clock"):
        camera_config("realsense:?clock=wall")
    with pytest.raises(ConfigError, match="index"):
        camera_config("realsense:?index=3")


@pytest.mark.parametrize(("fx_px", "focal"), [(40.0, 0.625), (0.0, None)])
def test_a_device_says_its_focal_length(attached, fx_px: float, focal: float | None) -> None:
    """40 pixels of a frame 64 pixels wide; 0 is no calibration."""
    attached(Device(fx_px=fx_px))
    opened = camera("realsense:")
    assert opened.focal is None, "not before it is open"
    opened.open()
    try:
        assert focal_of(opened) == focal
    finally:
        opened.close()
