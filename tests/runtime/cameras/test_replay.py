"""Recordings as cameras, with files made by the real libraries."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.io

from kd_edge.errors import CameraError, DataError
from kd_edge.runtime.cameras import Wanted, open_camera
from tests.runtime.conftest import HandClock


def read_all(camera):
    frames = []
    while not camera.ended:
        frame = camera.read(1.0)
        if frame is not None:
            frames.append(frame)
    assert camera.read(0.0) is None
    camera.close()
    return frames


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (6, 12, 16)), ("uint16", (6, 12, 16)), ("uint8", (6, 12, 16, 3))]
)
def test_npy(tmp_path, noise, dtype, shape):
    array = noise(shape[0], shape[1:], dtype)
    np.save(tmp_path / "clip.npy", array)
    camera = open_camera(f"replay:{tmp_path}/clip.npy?fps=10")
    assert (camera.dtype, camera.channels) == (dtype, 3 if len(shape) == 4 else 1)
    assert (camera.live, camera.name) == (False, "clip.npy")
    frames = read_all(camera)
    np.testing.assert_array_equal([f.image for f in frames], array)
    assert [f.captured_ns for f in frames] == [k * 100_000_000 for k in range(6)]
    assert [f.frame_id for f in frames] == list(range(6))
    assert all(f.image.flags.writeable for f in frames)  # copies: nothing keeps the file mapped


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_sequence_in_the_order_of_its_numbers(tmp_path, noise, dtype):
    array = noise(12, (12, 16), dtype)
    for k, image in enumerate(array):
        cv2.imwrite(str(tmp_path / f"frame{k}.png"), image)
    (tmp_path / "notes.txt").write_text("not an image")
    for uri in (f"replay:{tmp_path}", f"replay:{tmp_path}/frame*.png"):
        frames = read_all(open_camera(uri, Wanted("depth", dtype, 1)))
        np.testing.assert_array_equal([f.image for f in frames], array)
    assert frames[3].captured_ns == 100_000_000  # 30 fps unless told


def test_colour_images_are_rgb_or_grey_as_the_model_wants(tmp_path):
    blue = np.zeros((8, 8, 3), np.uint8)
    blue[:, :, 0] = 200  # OpenCV's order is B, G, R
    cv2.imwrite(str(tmp_path / "a.png"), blue)
    colour = read_all(open_camera(f"replay:{tmp_path}/a.png"))[0].image
    assert colour[0, 0].tolist() == [0, 0, 200]
    grey = read_all(open_camera(f"replay:{tmp_path}/a.png", Wanted(channels=1)))[0].image
    assert grey.shape == (8, 8)
    assert grey[0, 0] == round(0.114 * 200)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for k in range(10):
        writer.write(np.full((48, 64, 3), 20 * k, np.uint8))
    writer.release()
    return path


def test_video_every_frame_by_its_stamps(video):
    frames = read_all(open_camera(f"replay:{video}", Wanted(channels=1)))
    assert [round(f.image.mean() / 20) for f in frames] == list(range(10))
    assert [f.captured_ns for f in frames] == [k * 40_000_000 for k in range(10)]
    frames = read_all(open_camera(f"replay:{video}?fps=50"))
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[9].captured_ns == 180_000_000


def test_realtime_is_paced(video):
    clock = HandClock()
    started_ns = clock.now_ns()
    camera = open_camera(f"replay:{video}?fps=50", realtime=True, clock=clock)
    assert camera.live
    assert camera.read(1.0).captured_ns == started_ns
    assert camera.read(0.0) is None  # not due yet
    moments = []
    while (frame := camera.read(1.0)) is not None:
        moments.append((frame.captured_ns - started_ns, clock.now_ns() - started_ns))
    assert moments == [(k * 20_000_000, k * 20_000_000) for k in range(1, 10)]
    assert camera.ended
    camera.close()


def test_reopening_starts_again(video):
    camera = open_camera(f"replay:{video}")
    camera.read(1.0)
    camera.open()
    assert len(read_all(camera)) == 10


def test_utd_depth_shows_the_truth_from_its_name(tmp_path):
    depth = np.arange(240 * 320 * 4, dtype=np.uint16).reshape(240, 320, 4)
    scipy.io.savemat(tmp_path / "a4_s2_t1_depth.mat", {"d_depth": depth})
    camera = open_camera(f"replay:{tmp_path}/a4_s2_t1_depth.mat", Wanted("depth", "uint16", 1))
    assert (camera.band, camera.dtype, camera.channels, camera.fps) == ("depth", "uint16", 1, 30.0)
    frames = read_all(camera)
    np.testing.assert_array_equal(frames[2].image, depth[:, :, 2])
    assert frames[3].captured_ns == 100_000_000
    assert frames[0].truth == "clap"


def test_real_utd_depth(utd_root):
    frames = read_all(open_camera(f"replay:{utd_root}/Depth/a26_s2_t1_depth.mat"))
    assert frames[0].image.shape == (240, 320)
    assert frames[0].truth == "lunge"


def test_depth_recording_is_refused_by_an_infrared_model(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"d_depth": np.zeros((240, 320, 2), np.uint16)})
    with pytest.raises(CameraError, match="band depth") as caught:
        open_camera(f"replay:{tmp_path}/x.mat", Wanted("nir", "uint16", 1))
    assert "nir" in caught.value.expected


def damaged(tmp_path, name):
    path = tmp_path / name
    if name == "text.npy":
        path.write_bytes(b"hello")
    elif name == "float.npy":
        np.save(path, np.zeros((3, 4, 5)))
    elif name == "empty.npy":
        np.save(path, np.zeros((0, 4, 5), np.uint8))
    elif name == "object.npy":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif name.endswith((".avi", ".mat", ".png", ".xyz")):
        path.write_bytes(b"\0" * 600)
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.npy", "cannot be replayed"),
        ("float.npy", "it holds float64"),
        ("empty.npy", "it has no frame"),
        ("object.npy", "cannot be replayed"),
        ("zeros.avi", "no video OpenCV can read"),
        ("zeros.mat", "it is no MATLAB 5 file"),
        ("zeros.png", "it is no PNG, JPEG, BMP, TIFF or PNM image"),
        ("zeros.xyz", "of a kind that cannot be replayed"),
        ("empty folder", "it has no frame"),
    ],
)
def test_damaged_recordings_are_named(tmp_path, capfd, name, message):
    path = damaged(tmp_path, name)
    with pytest.raises(DataError, match=message) as caught:
        open_camera(f"replay:{path}")
    assert path.name in str(caught.value)


def test_absent_recording_suggests_the_closest(video):
    with pytest.raises(DataError, match=r"no recording .*did you mean 'clip.avi'"):
        open_camera(f"replay:{video.parent}/clip.av")
