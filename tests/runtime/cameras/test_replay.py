"""Recordings as cameras, with files made by the real libraries."""

from __future__ import annotations

import os
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
import scipy.io

from kd_edge.data.readers.bounds import image_size
from kd_edge.errors import CameraError, DataError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.replay import ReplayCamera
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
        ("float.npy", "it contains float64"),
        ("empty.npy", "it has no frame"),
        ("object.npy", "cannot be replayed"),
        ("zeros.avi", "it is not a video that PyAV or OpenCV can read"),
        ("zeros.mat", "it is not a MATLAB 5 file"),
        ("zeros.png", "it is not a PNG, JPEG, BMP, TIFF or PNM image"),
        ("zeros.xyz", "of a kind that cannot be replayed"),
        ("empty folder", "empty folder contains no image"),
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


def read_until_it_breaks(camera):
    """The frames that were handed over, and the error that came after them."""
    frames = []
    try:
        while not camera.ended:
            frames.append(camera.read(1.0))
    except DataError as error:
        assert camera.ended
        assert camera.read(0.0) is None
        camera.close()
        return frames, str(error)
    return frames, "nothing"


@pytest.mark.parametrize("at", [1, 2, 4])
def test_every_frame_before_a_damaged_image_is_handed_over(tmp_path, noise, at):
    array = noise(5, (12, 16))
    for k, image in enumerate(array):
        cv2.imwrite(str(tmp_path / f"{k}.png"), image)
    (tmp_path / f"{at}.png").write_bytes(b"no image")
    frames, error = read_until_it_breaks(open_camera(f"replay:{tmp_path}"))
    np.testing.assert_array_equal([f.image for f in frames], array[:at])
    assert f"{at}.png cannot be replayed" in error


def test_a_damaged_first_image_does_not_open_and_a_mended_one_does(tmp_path, noise):
    (tmp_path / "a.png").write_bytes(b"no image")
    camera = ReplayCamera("x", camera_config(f"replay:{tmp_path}"), Wanted())
    for _ in range(2):
        with pytest.raises(DataError, match="not a PNG, JPEG"):
            camera.open()
        assert not camera.ended
    cv2.imwrite(str(tmp_path / "a.png"), noise(1)[0])
    camera.open()
    assert len(read_all(camera)) == 1


def test_whatever_a_reader_raises_is_one_line(tmp_path, monkeypatch, noise):
    np.save(tmp_path / "a.npy", noise(1))
    for error in (MemoryError(), RuntimeError("two\nlines"), RecursionError("deep"), cv2.error("assertion")):

        def broken(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(np.lib.format, "open_memmap", broken)
        with pytest.raises(DataError, match=r"a\.npy cannot be replayed") as caught:
            open_camera(f"replay:{tmp_path}/a.npy")
        assert str(caught.value).isprintable()


PNG, PGM = cv2.imencode(".png", np.zeros((24, 32), np.uint16))[1].tobytes(), b"P5\n# a comment\n32 24\n255\n"


def npy(header):
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(1000)


def element(kind, payload):
    return struct.pack("<2I", kind, len(payload)) + payload


def mat(payload):
    return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + payload


def cells(levels):
    """Cells within cells, all named d_depth, the innermost empty."""
    head = (
        element(6, struct.pack("<2I", 1, 0))
        + element(5, struct.pack("<2i", 1, 1))
        + struct.pack("<2I8s", 1, 7, b"d_depth")
    )
    size = 8 + len(head)
    return b"".join(struct.pack("<2I", 14, size * left - 8) + head for left in range(levels, 0, -1))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", PNG[:16] + struct.pack(">2I", 60_000, 60_000) + PNG[24:], "60000x60000 pixels, not 1 to 10,000,000"),
        ("a.png", PNG[:16] + struct.pack(">2I", 0, 9) + PNG[24:], "0x9 pixels"),
        ("a.png", PNG[:20], "it breaks off 13 bytes before"),
        ("a.png", PNG.replace(b"IHDR", b"IDAT"), "its header is not where it must be"),
        ("a.png", PNG[:60], "it breaks off .* bytes before the end of a chunk"),
        ("a.png", PNG[:-12] + b"\x7f\0\0\0tEXt" + PNG[-12:], "it breaks off 2,130,706,.* before the end of a chunk"),
        ("a.png", PNG[:33] + b"\0\0\0\x08acTL" + bytes(12) + PNG[33:], "it is an animation"),
        ("a.png", PNG[:-12], "its header breaks off"),
        ("a.pgm", PGM.replace(b"32 24", b"60000\n60000"), "60000x60000 pixels"),
        ("a.pgm", b"P5 x", "its header is not made of numbers"),
        ("a.pgm", b"P5 5", "its header breaks off"),
        ("a.bmp", b"BM" + bytes(12) + struct.pack("<I2i", 40, 60_000, -60_000), "60000x60000 pixels"),
        ("a.bmp", b"BM" + bytes(12) + struct.pack("<I2H", 12, 60_000, 60_000), "60000x60000 pixels"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\4ab\xff\xc4\0\2\xff\xff\xc2\0\x0b\x08" + b"\xea\x60" * 2, "60000x60000 pixels"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\4ab", "subsection not found"),
        ("a.tif", b"II*\0" + struct.pack("<IH2HII2HII", 8, 2, 257, 3, 1, 60_000, 256, 4, 1, 60_000), "60000x60000 pix"),
        ("a.tif", b"MM\0*" + struct.pack(">IH2HII", 8, 1, 256, 5, 1, 8), "its size is of kind 5"),
        ("a.tif", b"II*\0" + struct.pack("<I", 2**31), "its header breaks off"),
        ("a.png", b"RIFF\0\0\0\0WEBPVP8 ", "not a PNG, JPEG, BMP, TIFF or PNM image"),
        (
            "a.npy",
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 99999, 99999)}"),
            "greater than file size",
        ),
        ("a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 0, 9)}"), "9x0 pixels"),
        (
            "a.npy",
            npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9, 10**9)}"),
            "cannot be replayed",
        ),
        ("a.npy", npy("(" * 9000), "a.npy cannot be replayed"),
        ("a.npy", npy("-" * 9000 + "1"), "a.npy cannot be replayed"),
        ("a.npy", npy("{'a': " * 1500), "a.npy cannot be replayed"),
        ("a.mat", mat(cells(3)), "its d_depth .* is of class cell, not uint16"),
        ("a.mat", mat(cells(20_000)), "its d_depth .* is of class cell, not uint16"),
        ("a.mat", mat(element(15, zlib.compress(bytes(101_000_000), 1))), "take more than 100,000,000 bytes"),
        ("a.mat", mat(element(15, b"no zlib")), "a.mat cannot be replayed"),
        ("a.mat", struct.pack("<5I", 0, 60_000, 60_000, 0, 8) + b"d_depth\0", "not a MATLAB 5 file"),
        ("a.avi", b"ffconcat version 1.0\nfile b.avi\n", "it is text, not a video"),
        ("a.ts", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n", "it is text, not a video"),
    ],
)
def test_a_file_that_claims_too_much(tmp_path, capfd, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_camera(f"replay:{tmp_path}/{name}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".pgm"])
def test_the_size_in_a_header_is_the_image_s(tmp_path, ending):
    for image in (np.zeros((24, 32), np.uint8), np.zeros((7, 300), np.uint8)):
        assert image_size(cv2.imencode(ending, image)[1].tobytes()) == image.shape[::-1]


def test_images_that_are_no_frames(tmp_path):
    for name, image in (("a.tif", np.zeros((8, 8), np.float32)), ("b.tif", np.zeros((8, 8), np.int16))):
        cv2.imwrite(str(tmp_path / name), image)
        with pytest.raises(DataError, match=r"it contains (float32|int16) \(8, 8\)"):
            open_camera(f"replay:{tmp_path}/{name}")


@pytest.mark.parametrize("ending", [".npy", ".mat", ".avi", ".png", ".xyz"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("gone")]
)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, ending, make):
    make(tmp_path / f"a{ending}")
    with pytest.raises(DataError, match=rf"{tmp_path}/a{ending} is not a regular file"):
        open_camera(f"replay:{tmp_path}/a{ending}")


def test_names_that_steer_terminals_or_search_whole_disks(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a\n\x1b[2J.png").write_bytes(b"")
    for target in (tmp_path, tmp_path / "**.png", tmp_path / "a\n\x1b[2J.png"):
        with pytest.raises(DataError, match=r"a\\n\\x1b\[2J.png cannot be replayed") as caught:
            open_camera(f"replay:{target}")
        assert str(caught.value).isprintable()
    cv2.imwrite(str(tmp_path / "below" / "b.jpg"), np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="it has no frame"):
        open_camera(f"replay:{tmp_path}/**.jpg")
    for name in ("n" * 300, "n" * 300 + ".npy", "n" * 300 + "*"):
        with pytest.raises(DataError):
            open_camera(f"replay:{tmp_path}/{name}")


class OddVideo:
    """A capture whose file says absurd things of itself."""

    def __init__(self, facts, stamps_ms):
        self.facts, self.stamps_ms = facts, list(stamps_ms)

    def isOpened(self):
        return True

    def get(self, what):
        return self.stamps_ms[0] if what == cv2.CAP_PROP_POS_MSEC else self.facts[what]

    def read(self):
        self.stamps_ms.pop(0)
        return bool(self.stamps_ms), np.zeros((8, 8, 3), np.uint8)

    def release(self):
        pass


@pytest.fixture
def no_pyav(monkeypatch):
    """A robot without PyAV: OpenCV decodes."""
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.parametrize("fps", [float("nan"), 0.0, -1.0, 1e9, float("inf")])
def test_a_video_with_absurd_stamps_is_evenly_spaced(video, monkeypatch, no_pyav, fps):
    facts = {
        cv2.CAP_PROP_FRAME_WIDTH: 8.0,
        cv2.CAP_PROP_FRAME_HEIGHT: 8.0,
        cv2.CAP_PROP_FPS: fps,
        cv2.CAP_PROP_CODEC_PIXEL_FORMAT: 0.0,
    }
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda *_: OddVideo(facts, [0.0, 0.0, float("nan"), -1e300, float("inf"), 1e18, 40.0])
    )
    stamps = [f.captured_ns for f in read_all(open_camera(f"replay:{video}"))]
    assert stamps == [0, *(round(1e9 / 30) * k for k in range(1, 5)), 4 * round(1e9 / 30) + round(1e9 / 30)]


def test_a_video_of_absurd_size_is_not_decoded(video, monkeypatch, no_pyav):
    facts = {cv2.CAP_PROP_FRAME_WIDTH: 32_000.0, cv2.CAP_PROP_FRAME_HEIGHT: 32_000.0}
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: OddVideo(facts, []))
    with pytest.raises(DataError, match="32000x32000 pixels"):
        open_camera(f"replay:{video}")
