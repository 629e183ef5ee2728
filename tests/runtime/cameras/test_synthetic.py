"""The generated figure as a camera."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.errors import CameraError, ConfigError
from kd_edge.runtime.cameras import Wanted, open_camera
from tests.runtime.conftest import HandClock


def test_follows_the_model():
    near_infrared = open_camera("synthetic:", Wanted("nir", "uint8", 1))
    assert (near_infrared.band, near_infrared.channels, near_infrared.live) == ("nir", 1, True)
    colour = open_camera("synthetic:", Wanted("rgb", "uint8", 3))
    assert (colour.band, colour.channels, colour.name) == ("rgb", 3, "synthetic")


def test_repeatable_without_realtime():
    def frames():
        camera = open_camera("synthetic:?realtime=false&frames=3&seed=5&height_px=60&width_px=80&actions=clap")
        found = []
        while not camera.ended:
            found.append(camera.read(1.0))
        assert camera.read(0.0) is None
        return found

    first, second = frames(), frames()
    assert [f.captured_ns for f in first] == [0, 33_333_333, 66_666_667]
    assert {f.truth for f in first} == {"clap"}
    assert first[0].image.shape == (60, 80)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)


def test_live_frames_come_at_their_rate_and_missed_ones_are_skipped():
    clock = HandClock()
    started_ns = clock.now_ns()
    camera = open_camera("synthetic:?fps=50&height_px=48&width_px=64", clock=clock)
    first = [camera.read(1.0) for _ in range(5)]
    assert [(f.frame_id, f.captured_ns - started_ns) for f in first] == [(k, k * 20_000_000) for k in range(5)]
    assert clock.slept == [0.0, 0.02, 0.02, 0.02, 0.02]
    assert camera.read(0.005) is None  # not due yet: it waited as long as it was told
    assert clock.slept[-1] == 0.005
    clock.advance(205)  # 290 ms after the start: frames 5 to 13 were missed
    late = camera.read(1.0)
    assert (late.frame_id, late.captured_ns - started_ns) == (14, 280_000_000)
    assert clock.slept[-1] == 0.0


def test_it_ends_after_so_many_frames_and_opens_anew():
    camera = open_camera("synthetic:?frames=2&height_px=48&width_px=64", clock=HandClock())
    assert [camera.ended, camera.read(1.0).frame_id, camera.ended] == [False, 0, False]
    assert [camera.read(1.0).frame_id, camera.ended, camera.read(1.0)] == [1, True, None]
    camera.open()
    assert [camera.ended, camera.read(1.0).frame_id] == [False, 0]


@pytest.mark.parametrize("query", ["seeed=1", "fps=0", "modality=xray", "actions=juggle"])
def test_mistakes(query):
    with pytest.raises(ConfigError):
        open_camera(f"synthetic:?{query}")


def figure_of(folder, text, query=""):
    (folder / "figure.toml").write_text(f'uri = "synthetic:?{query}"\n{text}\n')
    return str(folder / "figure.toml")


def test_a_camera_file_s_keys_count_and_its_query_wins(tmp_path):
    text = "fps = 5\nheight_px = 48\nwidth_px = 64"
    camera = open_camera(figure_of(tmp_path, text), clock=HandClock())
    assert (camera.fps, camera.read(1.0).image.shape) == (5.0, (48, 64))
    camera = open_camera(figure_of(tmp_path, text, "fps=50&width_px=80"), clock=HandClock())
    assert (camera.fps, camera.read(1.0).image.shape) == (50.0, (48, 80))
    with pytest.raises(ConfigError, match=r"figure\.toml has 1 fault: fps: .*less than or equal to 240"):
        open_camera(figure_of(tmp_path, "fps = 500"))


def test_band_is_what_the_figure_shows(tmp_path):
    assert open_camera(figure_of(tmp_path, 'band = "rgb"')).channels == 3
    assert open_camera(figure_of(tmp_path, 'band = "nir"')).channels == 1
    with pytest.raises(CameraError, match="nir"):
        open_camera(figure_of(tmp_path, 'band = "rgb"'), Wanted("nir", "uint8", 1))
    for text, query in (('band = "lwir"', ""), ('band = "depth"', ""), ('band = "nir"', "modality=rgb")):
        with pytest.raises(ConfigError, match=r"shows a figure in '(nir|rgb)'"):
            open_camera(figure_of(tmp_path, text, query))
