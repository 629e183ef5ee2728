"""Recordings that the real librealsense writes, from its software device, and plays back."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kd_edge.errors import ConfigError, DataError
from kd_edge.runtime.cameras import Wanted, make_camera, realsense_recording
from kd_edge.runtime.cameras.base import focal_of
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.realsense_recording import Playback, is_recording
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import LabelState

FRAMES = 30


@pytest.fixture(scope="module")
def rs() -> Any:
    try:
        import pyrealsense2
    except ImportError as error:  # also where libusb is missing
        pytest.skip(f"pyrealsense2: {error}")
    return pyrealsense2


@pytest.fixture(scope="module")
def recorded(rs: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``recorded("y8")``: thirty frames whose value is their number, 100 more in imager 2, lit every other time."""
    folder = tmp_path_factory.mktemp("realsense")

    def record(kind: str, *, lit: bool = False) -> Path:
        from tests.runtime.cameras.test_realsense import HEIGHT, WIDTH, Device

        path = folder / f"{kind}{'-lit' if lit else ''}.db3"
        if path.exists():
            return path
        size, indices = (1, (1, 2)) if kind == "y8" else (2, (1,))
        device = Device(formats=tuple((index, getattr(rs.format, kind), size) for index in indices))
        context, kept = rs.context(), []
        context.set_devices_changed_callback(lambda event: kept.append(event.get_new_devices()))
        device.device.add_to(context)
        pipeline, config = rs.pipeline(context), rs.config()
        for index in indices:
            config.enable_stream(rs.stream.infrared, index, WIDTH, HEIGHT, getattr(rs.format, kind), 30)
        config.enable_record_to_file(str(path))
        pipeline.start(config)
        for number in range(FRAMES):
            for index in indices:
                image = np.full((HEIGHT, WIDTH), number + 100 * (index - 1), np.uint8 if size == 1 else np.uint16)
                device.number = number  # frames of one number make a set
                device.push(image, 5000 + number * 1000 / 30, index=index, lit=number % 2 if lit else None)
            assert pipeline.try_wait_for_frames(5000)[0]
        pipeline.stop()
        del pipeline, config
        gc.collect()  # librealsense finishes the file
        return path

    return record


def frames_of(uri: str, wanted: Wanted = Wanted(), pause: float = 0.0) -> list[tuple[int, int, str]]:  # noqa: B008
    camera, found = make_camera(uri, camera_config(uri), wanted), []
    camera.open()
    try:
        while not camera.ended:
            frame = camera.read(5.0)
            found.append((int(frame.image[0, 0]), frame.captured_ns, frame.image.dtype.name))
            time.sleep(pause)
    finally:
        camera.close()
    return found


def test_every_frame_with_its_stamp(recorded) -> None:
    path = recorded("y8")
    first = frames_of(f"replay:{path}")
    assert [value for value, _, _ in first] == list(range(FRAMES))
    assert [stamp for _, stamp, _ in first] == pytest.approx([round(k * 1e9 / 30) for k in range(FRAMES)], abs=1000)
    assert {kind for _, _, kind in first} == {"uint8"}
    assert frames_of(f"replay:{path}") == first
    assert frames_of(f"replay:{path}", pause=0.03) == first  # a slow reader loses none
    assert [value for value, _, _ in frames_of(f"replay:{path}?index=2")] == list(range(100, 100 + FRAMES))
    assert frames_of(f"replay:{path}?fps=15")[-1][1] == pytest.approx(2 * first[-1][1], abs=2000)
    assert frames_of(f"replay:{recorded('y16')}")[7][::2] == (7, "uint16")


def test_frames_that_the_projector_lit_are_left_out(recorded) -> None:
    values = [value for value, _, _ in frames_of(f"replay:{recorded('y8', lit=True)}?emitter=alternating")]
    assert values == list(range(0, FRAMES, 2))
    with pytest.raises(DataError, match="does not record which frames the projector lit"):
        frames_of(f"replay:{recorded('y8')}?emitter=alternating")


def test_what_the_camera_says_of_it(recorded) -> None:
    uri = f"replay:{recorded('y8')}"
    camera = make_camera(uri, camera_config(uri))
    camera.open()
    try:
        assert (camera.band, camera.dtype, camera.channels, camera.fps) == ("nir", "uint8", 1, 30)
        assert (camera.live, camera.name) == (False, "y8.db3")
        camera.open()  # from its start again
        assert camera.read(5.0).image[0, 0] == 0
    finally:
        camera.close()


@pytest.mark.parametrize("has_begun", [True, False])
def test_its_device_is_kept_until_librealsense_has_stopped_reading(recorded, has_begun: bool) -> None:
    playback = Playback(recorded("y8"), camera_config(f"replay:{recorded('y8')}"), Wanted())
    for _ in range(5):
        playback.open()
        if has_begun:
            next(playback.frames())  # in the middle of it
        device = playback._playback
        playback.close()
        assert device.current_status() == playback._rs.playback_status.stopped


def test_a_device_that_does_not_stop_reading_is_kept(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(realsense_recording, "STOP_SECONDS", 0.0)
    monkeypatch.setattr(realsense_recording, "_LEFT", kept)
    playback = Playback(recorded("y8"), camera_config(f"replay:{recorded('y8')}"), Wanted())
    playback.open()
    device = playback._playback
    playback.close()
    assert kept == [device]
    ends = time.monotonic() + 60
    while device.current_status() != playback._rs.playback_status.stopped and time.monotonic() < ends:
        time.sleep(0.01)  # before this test lets it go, too


def test_what_is_no_such_recording_is_one_line(recorded, tmp_path: Path) -> None:
    path = recorded("y8")
    with pytest.raises(DataError, match=r"has no infrared imager 2. Expected one that was recorded: 1 \(Y16\)"):
        frames_of(f"replay:{recorded('y16')}?index=2")
    content = path.read_bytes()
    for name, damaged in (
        ("cut.db3", content[: len(content) // 2]),
        ("junk.db3", b"junk" * 1000),
        ("empty.db3", b""),
        ("cut.bag", b"#ROSBAG V2.0\n" + b"junk" * 100),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name} cannot be replayed: ") as caught:
            frames_of(f"replay:{tmp_path / name}")
        assert str(caught.value).isprintable()


def test_a_recording_on_which_librealsense_hangs_is_one_line(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realsense_recording, "OPEN_SECONDS", 0.5)
    monkeypatch.setattr(realsense_recording, "_OPEN", "import time; time.sleep(60)")
    with pytest.raises(DataError, match=r"librealsense does not open it in 0\.5 s"):
        frames_of(f"replay:{recorded('y8')}")


def test_frames_that_are_lost_are_told(recorded, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "damaged.db3"
    shutil.copy(recorded("y8"), path)
    with sqlite3.connect(path) as database:
        query = (
            "SELECT messages.id FROM messages JOIN topics ON topics.id = topic_id WHERE name LIKE ? LIMIT 1 OFFSET 10"
        )
        (number,) = database.execute(query, ("%Infrared_1/image/data%",)).fetchone()
        database.execute("UPDATE messages SET data = x'00010000' WHERE id = ?", (number,))
    database.close()
    values = [value for value, _, _ in frames_of(f"replay:{path}")]
    assert values == list(range(10))
    assert "only 10 of its 30 frames could be read" in caplog.text


def test_another_maker_s_rosbag2_is_none(tmp_path: Path) -> None:
    path = tmp_path / "other's #1.db3"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE topics (name TEXT)")
        database.execute("INSERT INTO topics VALUES ('/camera/infra1/image_rect_raw'), ('/device_0')")
    database.close()
    before = sorted(tmp_path.iterdir())
    assert not is_recording(path)
    with pytest.raises(DataError, match="cannot be replayed"):
        frames_of(f"replay:{path}")
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO topics VALUES ('/device_0/sensor_0/Infrared_1/image/data')")
    database.close()
    assert is_recording(path)
    assert sorted(tmp_path.iterdir()) == before
    assert not is_recording(tmp_path / "gone.db3")
    assert not is_recording(tmp_path)


def test_labels_come_of_it(recorded, make_model) -> None:
    uri = f"replay:{recorded('y8')}"
    with LabelStream(make_model()[0], uri, StreamOptions()) as labels:
        states = [prediction.state for prediction in labels]
    assert len(states) == FRAMES
    assert states[-1] is LabelState.OK


def test_keys_of_a_recording() -> None:
    assert camera_config("replay:a.db3?index=2&emitter=alternating").index == 2
    with pytest.raises(ConfigError, match="sets emitter"):
        camera_config("replay:a.bag?emitter=off")
    with pytest.raises(ConfigError, match="sets index"):
        camera_config("replay:a.mkv?index=2")


def test_a_recording_knows_the_imagers_focal_length(recorded: Callable[..., Path]) -> None:
    camera = make_camera("ir", camera_config(f"replay:{recorded('y8')}"))
    camera.open()
    try:
        assert focal_of(camera) == 0.625, "40 pixels of 64"
    finally:
        camera.close()


def test_a_recording_whose_reading_begins_late_is_not_taken_for_an_empty_one(
    recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    playback = Playback(recorded("y8"), camera_config(f"replay:{recorded('y8')}"), Wanted())
    playback.open()
    try:
        taken, stopped = playback._taken, SimpleNamespace(current_status=lambda: playback._rs.playback_status.stopped)
        late = [None, None]  # as the status is until librealsense's thread runs
        monkeypatch.setattr(playback, "_taken", lambda: late.pop() if late else taken())
        with monkeypatch.context() as before:
            before.setattr(playback, "_playback", stopped)
            frames = playback.frames()
            first = next(frames)
        assert first[0][0, 0] == 0
        monkeypatch.setattr(realsense_recording, "BEGIN_SECONDS", 0.0)
        playback._has_begun = False
        monkeypatch.setattr(playback, "_taken", lambda: None)
        with monkeypatch.context() as before:
            before.setattr(playback, "_playback", stopped)
            assert list(playback.frames()) == []
    finally:
        monkeypatch.undo()
        playback.close()
