"""One file through training's reader and through ``replay:``: the same frames, to the bit, at the same times."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest

from kd_edge.data.cache.frames import cache_fingerprint
from kd_edge.data.readers import images, pixels
from kd_edge.data.readers.files.dataset import Files
from kd_edge.data.readers.files.media import Media
from kd_edge.data.readers.files.settings import Modality
from kd_edge.data.readers.ntu_rgbd import NtuRgbd
from kd_edge.data.readers.video import decoder_key, iterate_video, read_video, video_info
from kd_edge.errors import BrokenOffError, CameraError, DataError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.lossless import LosslessWriter
from tests.runtime.cameras.test_replay import no_pyav, read_all, read_until_it_breaks

__all__ = ["no_pyav"]  # pytest finds it here

MILLISECOND = Fraction(1, 1000)


def pictures(count: int, size: tuple[int, int] = (48, 64), dtype: str = "uint8", top: int = 256) -> list[np.ndarray]:
    """A bright square that moves over a slope: every frame differs, and none looks the same when it is turned."""
    height, width = size
    slope = np.linspace(0, top // 2, height * width).reshape(size)
    found = []
    for k in range(count):
        image = slope.copy()
        image[4:12, 4 + k % (width - 16) : 12 + k % (width - 16)] = top - 1 - k
        found.append(image.astype(dtype))
    return found


class Written(NamedTuple):
    """What a file is made with; stamps in ms."""

    name: str
    codec: str = "libx264"
    pixels: str = "yuv420p"
    stamps: Sequence[int] = tuple(40 * k for k in range(10))
    dtype: str = "uint8"
    top: int = 256
    turned: int = 0
    b_frames: int = 0
    options: dict[str, str] = {}  # noqa: RUF012
    form: str | None = None


def write(folder: Path, made: Written) -> Path:
    path = folder / made.name
    with av.open(str(path), "w", format=made.form) as container:
        stream = container.add_stream(made.codec, rate=25, options=dict(made.options))
        stream.height, stream.width, stream.pix_fmt = 48, 64, made.pixels
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, made.b_frames
        stream.codec_context.time_base = Fraction(1, 25) if made.name.endswith((".avi", ".y4m")) else MILLISECOND
        if made.turned:
            stream.set_display_rotation(made.turned)
        source = made.pixels if made.dtype == "uint16" else "gray"
        for image, stamp in zip(pictures(len(made.stamps), dtype=made.dtype, top=made.top), made.stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format=source).reformat(format=made.pixels)
            frame.pts, frame.time_base = stamp, MILLISECOND
            if made.name.endswith((".avi", ".y4m")):
                frame.pts, frame.time_base = stamp // 40, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def replayed(path: Path, channels: int | None = 1, dtype: str | None = None) -> tuple[np.ndarray, list[int]]:
    frames = read_all(open_camera(f"replay:{path}", Wanted(dtype=dtype, channels=channels)))
    return np.stack([f.image for f in frames]), [f.captured_ns for f in frames]


UNEVEN = (0, 40, 80, 200, 210, 220, 600, 640, 680, 1500)
FILES = [
    Written("plain.mp4"),
    Written("b_frames.mp4", b_frames=2),
    Written("b_frames.avi", "mpeg4", b_frames=2),
    Written("b_frames.ts", b_frames=2),
    Written("uneven.mp4", stamps=UNEVEN, b_frames=2),
    Written("uneven.mkv", stamps=UNEVEN),
    Written("late.mkv", stamps=tuple(5000 + 40 * k for k in range(10))),
    Written("late.mp4", stamps=tuple(5000 + 40 * k for k in range(10)), b_frames=2),
    Written("one.mp4", stamps=(0,)),
    Written("quarter.mp4", turned=90),
    Written("half.mp4", turned=180),
    Written("three.mov", turned=270),
    Written("photo.avi", "mjpeg", "yuvj420p"),
    Written("web.webm", "libvpx-vp9"),
    Written("grey.mkv", "ffv1", "gray"),
    Written("ten.mkv", "ffv1", "gray10le", dtype="uint16", top=1024),
    Written("twelve.mkv", "ffv1", "gray12le", dtype="uint16", top=4096),
    Written("sixteen.mkv", "ffv1", "gray16le", dtype="uint16", top=65536),
    Written("deep_colour.mkv", "ffv1", "yuv420p10le"),
    Written("flash.flv", "flv1"),
    Written("text_head.y4m", "rawvideo", form="yuv4mpegpipe"),
    Written("no ending", form="matroska"),
    Written("wrong.png", form="mp4"),
    Written("wrong.tif", "ffv1", "gray", form="matroska"),
]


@pytest.mark.parametrize("made", FILES, ids=[made.name for made in FILES])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_and_replay_see_the_same(tmp_path: Path, made: Written, channels: int) -> None:
    if channels == 3 and made.dtype == "uint16":
        pytest.skip("grey of more than 8 bit is no colour: refused, below")
    path = write(tmp_path, made)
    clip = read_video(path, gray=channels == 1, whole=True)
    frames, stamps = replayed(path, channels, made.dtype)
    assert clip.frames.dtype == frames.dtype == np.dtype(made.dtype)
    np.testing.assert_array_equal(frames, clip.frames)
    assert stamps == clip.stamps_ns.tolist()
    expected = (np.array(made.stamps) - made.stamps[0]) * 1e6
    np.testing.assert_allclose(stamps, expected, atol=600_000)  # some containers have a clock of 1/90000 s
    size = (64, 48) if made.turned % 180 else (48, 64)
    assert frames.shape == (len(made.stamps), *size, *((3,) if channels == 3 else ()))


@pytest.mark.parametrize("made", [made for made in FILES if made.codec == "ffv1" and made.pixels.startswith("gray")])
def test_grey_is_what_was_stored(tmp_path: Path, made: Written) -> None:
    frames, _ = replayed(write(tmp_path, made), 1, made.dtype)
    np.testing.assert_array_equal(frames, pictures(10, dtype=made.dtype, top=made.top))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_of_sixteen_bit_is_what_was_stored(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    written = np.random.default_rng(0).integers(0, top, (5, 48, 64, 3), dtype, endpoint=True)
    path = tmp_path / "a.mkv"
    with path.open("wb") as file:
        writer = LosslessWriter(file, written[0], 25.0)
        for k, image in enumerate(written):
            writer.add(image, 40_000_000 * k)
        writer.finish()
    for channels in (3, None):
        np.testing.assert_array_equal(replayed(path, channels, dtype.__name__)[0], written)
    np.testing.assert_array_equal(read_video(path).frames, written)
    assert video_info(path)[5:] == (dtype.__name__, 3)
    grey = read_video(path, gray=True).frames
    np.testing.assert_array_equal(replayed(path, 1, dtype.__name__)[0], grey)
    assert np.abs(grey - written @ np.array([0.299, 0.587, 0.114])).max() < 0.51 + top / 20_000


@pytest.mark.parametrize(("codec", "pixels"), [("libx264", "yuv420p"), ("ffv1", "yuv420p"), ("mjpeg", "yuvj420p")])
def test_grey_of_colour_is_its_luminance_over_the_full_range(tmp_path: Path, codec: str, pixels: str) -> None:
    """Y of 16 is black and of 235 white, unless the file has the full range."""
    path = tmp_path / "a.mkv"
    values = np.repeat(np.uint8([16, 60, 126, 200, 235, 255, 0, 128]), 16 * 64).reshape(128, 64)
    with av.open(str(path), "w") as container:
        options = {"qp": "0", "crf": "0"} if codec == "libx264" else {"qscale": "1", "qmin": "1"}
        stream = container.add_stream(codec, rate=25, options=options if codec != "ffv1" else {})
        stream.height, stream.width, stream.pix_fmt = 128, 64, pixels
        frame = av.VideoFrame(64, 128, pixels)
        for plane, content in zip(frame.planes, (values, *[np.full((64, 32), 128, np.uint8)] * 2), strict=True):
            padded = np.zeros((plane.height, plane.line_size), np.uint8)
            padded[:, : plane.width] = content
            plane.update(padded.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    wide = pixels == "yuvj420p"
    expected = values if wide else np.clip(np.round((values.astype(float) - 16) * 255 / 219), 0, 255)
    grey = read_video(path, gray=True).frames[0]
    assert np.abs(grey.astype(int) - expected).max() <= (3 if wide else 0)  # Motion JPEG is not lossless
    colour = read_video(path).frames[0]
    assert np.abs(colour.astype(int) - expected[:, :, None]).max() <= 4
    np.testing.assert_array_equal(replayed(path, 1)[0][0], grey)


def test_colour_of_ten_bit_becomes_eight_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels._warn_of_depth.cache_clear()
    path = write(tmp_path, Written("a.mkv", "ffv1", "yuv420p10le"))
    for _ in range(2):
        assert replayed(path, 3)[0].dtype == np.uint8
    assert caplog.text.count("colour of 10 bit is read as 8 bit") == 1


def test_upright_pictures_are_scaled_down_by_their_upright_height(tmp_path: Path) -> None:
    path = write(tmp_path, Written("a.mp4", turned=90))
    assert read_video(path, gray=True, max_height_px=32).frames.shape == (10, 32, 24)


@pytest.mark.parametrize("name", ["ten.mkv", "sixteen.mkv"])
def test_deep_grey_is_refused_where_eight_bit_or_colour_is_wanted(tmp_path: Path, name: str) -> None:
    (made,) = (made for made in FILES if made.name == name)
    path = write(tmp_path, made)
    assert video_info(path).dtype == "uint16"
    with pytest.raises(CameraError, match="uint16"):
        open_camera(f"replay:{path}", Wanted("nir", "uint8", 1))
    with pytest.raises(DataError, match="it is grey of more than 8 bit where colour is wanted"):
        open_camera(f"replay:{path}", Wanted("rgb", "uint8", 3))
    with pytest.raises(DataError, match="it is grey of more than 8 bit where colour is wanted"):
        read_video(path)


@pytest.mark.parametrize(
    ("turned", "shown"),
    [
        (0, lambda image: image),
        (90, lambda image: np.rot90(image, 1)),  # anticlockwise, as FFmpeg has it
        (180, lambda image: np.rot90(image, 2)),
        (270, lambda image: np.rot90(image, 3)),
    ],
)
@pytest.mark.parametrize("asked", [0, 90, 270])
def test_a_phone_s_clip_is_upright(
    tmp_path: Path, turned: int, shown: Callable[[np.ndarray], np.ndarray], asked: int
) -> None:
    path = write(tmp_path, Written("a.mp4", "ffv1", "gray", turned=turned))
    right = [shown(image) for image in pictures(10)]
    np.testing.assert_array_equal(replayed(path)[0], right)
    media = Media(Modality(band="nir", rotation=asked), 1, 480)
    np.testing.assert_array_equal(media.read(path).frames, [np.rot90(image, -asked // 90) for image in right])


def test_mirrored_clips_are_shown_as_they_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "gray"
        stream.set_display_rotation(0, hflip=True)
        (image,) = pictures(1)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
    np.testing.assert_array_equal(replayed(path)[0], [image[:, ::-1]])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_pieces_of_uneven_recordings_are_chosen_by_stamps(tmp_path: Path, name: str) -> None:
    """Frames come 9 times a second, then 30 times: by the mean rate every piece would be another one."""
    stamps = [*range(0, 11_100, 111), *range(11_100, 14_400, 33)]
    path = write(tmp_path, Written(name, stamps=stamps, b_frames=2))
    whole = read_video(path, gray=True)
    for start, stop in ((100, 150), (120, 180), (50, 110), (0, 7), (199, 200)):
        clip = read_video(path, gray=True, start=start, stop=stop)
        assert len(clip) == stop - start
        np.testing.assert_array_equal(clip.frames, whole.frames[start:stop])
        np.testing.assert_allclose(clip.stamps_ns, whole.stamps_ns[start:stop] - whole.stamps_ns[start], atol=2)
    media = Media(Modality(band="nir"), 1, 480)
    for start_s, end_s in ((3.33, 6.66), (10.0, 12.0), (11.1, 11.2), (14.0, None)):
        inside = [start_s <= at / 1e3 < (end_s or 99) for at in stamps]
        np.testing.assert_array_equal(media.read(path, start_s, end_s).frames, whole.frames[inside])


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ((0, 40, 40, 120, 160), [0, 40, 80, 120, 160]),  # equal
        ((0, 40, 20, 120, 160), [0, 40, 80, 120, 160]),  # one goes back
        ((800, 840, 880, 0, 40), [0, 40, 80, 120, 160]),  # another recording begins
    ],
)
def test_stamps_that_do_not_rise_do_so_here(tmp_path: Path, stamps: tuple[int, ...], expected: list[int]) -> None:
    path = write(tmp_path, Written("a.mkv", "ffv1", "gray", stamps=tuple(40 * k for k in range(5))))
    _set_stamps(path, stamps)
    clip = read_video(path, gray=True)
    assert clip.stamps_ns.tolist() == [at * 1_000_000 for at in expected] == replayed(path)[1]
    part = read_video(path, gray=True, start=2, stop=4)  # cannot be sought for: counted
    np.testing.assert_array_equal(part.frames, clip.frames[2:4])
    assert part.stamps_ns.tolist() == [0, 40_000_000]


def _set_stamps(path: Path, stamps: tuple[int, ...]) -> None:
    """Write other times into Matroska's blocks, which count from their cluster's."""
    content = bytearray(path.read_bytes())
    at = 0
    for stamp in stamps:
        at = _next_block(content, at)
        content[at : at + 2] = stamp.to_bytes(2, "big", signed=True)
        at += 2
    path.write_bytes(content)


def _next_block(content: bytearray, at: int) -> int:
    """Where the time of the next SimpleBlock of track 1 stands: behind its name, size and track."""
    start = content.index(b"\x1f\x43\xb6\x75")  # the cluster
    while True:
        at = content.index(b"\xa3", max(at, start))
        size = content[at + 1]
        length = next(n for n in range(1, 9) if size >> (8 - n) & 1)
        if content[at + 1 + length] == 0x81 and content[at + 4 + length] & 0x7F == 0:
            return at + 2 + length
        at += 1


def test_another_size_is_another_camera_s_and_no_clip(tmp_path: Path) -> None:
    first, second = (write(tmp_path, Written(f"{k}.h264", form="h264")) for k in "ab")
    with av.open(str(second), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for image in pictures(4, (32, 48)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
    path = tmp_path / "both.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    sizes = [f.image.shape for f in read_all(open_camera(f"replay:{path}", Wanted(channels=1)))]
    assert sizes == [(48, 64)] * 10 + [(32, 48)] * 4
    with pytest.raises(DataError, match=r"both\.h264 is damaged: its pictures differ in size, after 10 frames"):
        read_video(path)


def test_a_stream_without_stamps_is_evenly_spaced(tmp_path: Path) -> None:
    path = write(tmp_path, Written("a.h264", form="h264", b_frames=2))
    clip = read_video(path, gray=True)
    frames, stamps = replayed(path)
    np.testing.assert_array_equal(frames, clip.frames)
    assert stamps == clip.stamps_ns.tolist() == [40_000_000 * k for k in range(10)]


def test_a_clip_cut_by_an_edit_list_is_whole(tmp_path: Path) -> None:
    """A phone's editor leaves what it cuts away in the file: the header counts it, nobody sees it."""
    path = write(tmp_path, Written("a.mp4", stamps=tuple(40 * k for k in range(50)), b_frames=2))
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 4 + 4  # after version and flags: entries, then duration, media time, rate
    timescale = int.from_bytes(content[content.index(b"mvhd") + 16 : content.index(b"mvhd") + 20], "big")
    media = int.from_bytes(content[content.index(b"mdhd") + 16 : content.index(b"mdhd") + 20], "big")
    begins = int.from_bytes(content[at + 8 : at + 12], "big")
    content[at + 4 : at + 8] = (timescale * 800 // 1000).to_bytes(4, "big")
    content[at + 8 : at + 12] = (begins + media * 400 // 1000).to_bytes(4, "big")
    whole = read_video(path, gray=True)
    path.write_bytes(content)
    clip = read_video(path, gray=True, whole=True)
    assert 19 <= len(clip) <= 22
    np.testing.assert_array_equal(clip.frames, whole.frames[10 : 10 + len(clip)])
    frames, stamps = replayed(path)
    np.testing.assert_array_equal(frames, clip.frames)
    assert stamps == clip.stamps_ns.tolist()
    np.testing.assert_array_equal(read_video(path, gray=True, start=5, stop=9).frames, clip.frames[5:9])


NAMES = [
    b"-rf.mp4", b"a#b.mp4", b"100%.mp4", b"a%03d.mp4", b"a:b.mp4", b"http:x.mp4", b"concat:a|b.mp4", b"clip[1].mp4",
    b"what?.mp4", b"what?a=b.mp4", b"a*b.mp4", b"two\nlines.mp4", b"caf\xe9.mp4", "\u2603.mp4".encode(), b"pipe:0",
    b"a b'\".mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_bytes(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    path.write_bytes(write(tmp_path, Written("plain.mp4")).read_bytes())
    assert len(read_video(path)) == len(replayed(path)[0]) == 10


def test_a_name_that_begins_like_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, Written("plain.mp4")).rename(tmp_path / "~nobody.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(replayed(Path("~nobody.mp4"))[0]) == 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nplain.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mp4", b"ffconcat version 1.0\nfile plain.mp4\n"),
        ("a.ffconcat", b"ffconcat version 1.0\nfile 'plain.mp4'\n"),
        ("a.sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ("a.mpd", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'),
        ("art.txt", b"\x1b[31mHello\x1b[0m\n" * 50),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nplain.mp4\n#EXT-X-ENDLIST\n" + bytes(100)),
    ],
)
def test_a_file_opens_no_other_one(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path, Written("plain.mp4"))
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_camera(f"replay:{path}")
    with pytest.raises(DataError, match=name):
        read_video(path)


@pytest.mark.parametrize(
    ("made", "damage", "message"),
    [
        (Written("a.mkv", "ffv1", "gray", options={"slicecrc": "1", "level": "3"}), "flip", "after 4 frames"),
        (
            Written("a.avi", "mjpeg", "yuvj420p", stamps=tuple(40 * k for k in range(40))),
            "cut",
            "bytes are missing at its end",
        ),
        (Written("a.mkv", stamps=tuple(40 * k for k in range(100))), "cut", "breaks off|it ends after"),
        (Written("a.ts", stamps=tuple(40 * k for k in range(100))), "flip", "after \\d+ frames"),
    ],
)
def test_damage_is_refused_for_training_and_ends_a_replay(
    tmp_path: Path, made: Written, damage: str, message: str
) -> None:
    path = write(tmp_path, made)
    sound = read_video(path, gray=True).frames
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        middle = len(content) // 2
        content[middle : middle + 40] = bytes(byte ^ 0xFF for byte in content[middle : middle + 40])
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{made.name} is damaged: .*({message})"):
        Media(Modality(band="nir"), 1, 480).read(path)
    camera = open_camera(f"replay:{path}", Wanted(channels=1))
    frames, error = read_until_it_breaks(camera)
    assert "cannot be replayed" in error
    assert 2 < len(frames) < len(sound)
    np.testing.assert_array_equal([f.image for f in frames], sound[: len(frames)])


def test_what_breaks_off_ends_with_exit_code_one(tmp_path: Path) -> None:
    path = write(tmp_path, Written("a.mkv", stamps=tuple(40 * k for k in range(100))))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    camera = open_camera(f"replay:{path}")
    for _ in range(20):  # two groups of pictures or more lie before the cut
        assert camera.read(1.0) is not None
    with pytest.raises(BrokenOffError, match=r"a\.mkv cannot be replayed") as caught:
        read_all(camera)
    assert caught.value.exit_code == 1
    camera.close()


def test_a_recording_that_begins_between_key_frames_is_read_from_the_first_one(tmp_path: Path) -> None:
    path = write(tmp_path, Written("a.ts", stamps=tuple(40 * k for k in range(60))))
    sound = read_video(path, gray=True).frames
    content = path.read_bytes()
    path.write_bytes(content[: 188 * 3] + content[len(content) // 2 // 188 * 188 :])
    frames, stamps = replayed(path)
    assert stamps[0] == 0
    assert len(frames) >= 12
    assert any(np.array_equal(frames[0], image) for image in sound)


def test_opencv_stands_in_for_a_missing_pyav_and_says_so(
    tmp_path: Path, no_pyav: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for image in pictures(10):
        writer.write(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    writer.release()
    frames, stamps = replayed(path)
    assert frames.shape == (10, 48, 64)
    assert stamps == [40_000_000 * k for k in range(10)]
    assert "a.avi is decoded by OpenCV, not by PyAV: module 'av'" in caplog.text
    assert np.abs(frames.astype(int) - np.stack(pictures(10)).astype(int)).mean() < 4


def test_a_missing_pyav_does_not_cut_deep_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made,) = (made for made in FILES if made.name == "sixteen.mkv")
    path = write(tmp_path, made)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match="grey of more than 8 bit, which only PyAV reads"):
        open_camera(f"replay:{path}")


def test_what_pyav_cannot_open_and_opencv_can_is_read_by_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, Written("a.avi", "mjpeg", "yuvj420p"))

    def refuse(*_: object, **__: object) -> None:
        raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")

    monkeypatch.setattr(av, "open", refuse)
    clip = read_video(path, gray=True)
    frames, stamps = replayed(path)
    np.testing.assert_array_equal(frames, clip.frames)
    assert stamps == clip.stamps_ns.tolist()
    assert len(read_video(path, start=3, stop=7)) == 4
    assert video_info(path)[:4] == (10, 25.0, 48, 64)
    assert "decoded by OpenCV, not by PyAV: Invalid data" in caplog.text


def test_an_avi_with_a_broken_index_is_read_to_its_end(tmp_path: Path) -> None:
    """Its places are all wrong: nothing is lost, so nothing is damaged."""
    path = write(tmp_path, Written("a.avi", "mjpeg", "yuvj420p", stamps=tuple(40 * k for k in range(30))))
    sound = read_video(path, gray=True).frames
    content = bytearray(path.read_bytes())
    at = content.rindex(b"idx1") + 8
    for entry in range(at, at + 16 * 30, 16):
        content[entry + 8 : entry + 12] = (int.from_bytes(content[entry + 8 : entry + 12], "little") + 77).to_bytes(
            4, "little"
        )
    path.write_bytes(content)
    frames, stamps = replayed(path)
    np.testing.assert_array_equal(frames, sound)
    assert stamps[-1] == 29 * 40_000_000


def test_another_decoder_makes_another_cache(ntu_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = NtuRgbd(ntu_tree)

    def key() -> str:
        return cache_fingerprint(dataset, dataset.samples[:2], "ir", 32)

    before = key()
    assert key() == before
    for module in ("ntu_rgbd", "pku_mmd", "mmact", "files.media"):
        monkeypatch.setattr(f"kd_edge.data.readers.{module}.decoder_key", lambda: "another one")
    assert key() != before


def test_the_decoder_is_named() -> None:
    assert decoder_key().startswith(f"video 2 by PyAV {av.__version__} (libavcodec ")
    assert decoder_key().endswith(f"OpenCV {cv2.__version__}")


def tiff(path: Path, pages: Sequence[np.ndarray]) -> Path:
    assert cv2.imwritemulti(str(path), list(pages), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "no ending"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_pages_of_a_tiff_are_frames(tmp_path: Path, name: str, dtype: str) -> None:
    written = pictures(7, dtype=dtype, top=256 if dtype == "uint8" else 60_000)
    path = tiff(tmp_path / "a.tif", written).rename(tmp_path / name)
    frames, stamps = replayed(path, 1, dtype)
    np.testing.assert_array_equal(frames, written)
    assert stamps == [round(k * 1e9 / 30) for k in range(7)]
    media = Media(Modality(band="nir"), 1, 480)
    clip = media.read(path)
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.stamps_ns.tolist() == stamps
    assert media.probe(path).frames == 7
    assert media.values(path).dtype == dtype
    np.testing.assert_array_equal(media.read(path, 0.1, 0.2).frames, written[3:6])


def test_tiffs_of_several_pages_are_recordings_of_a_folder(tmp_path: Path) -> None:
    for name in ("wave/1", "wave/2", "kick/1", "kick/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tiff(tmp_path / f"{name}_ir.tif", pictures(7))
        (tmp_path / name).with_name(f"._{name[-1]}_ir.tif").write_bytes(b"\0\5\x16\7")
    dataset = Files(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["kick/1", "kick/2", "wave/1", "wave/2"]
    np.testing.assert_array_equal(dataset.open(dataset.samples[0], "ir").frames, pictures(7))


def test_pages_that_differ_or_are_endless(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", [*pictures(3), *pictures(1, (20, 30))])
    frames, error = read_until_it_breaks(open_camera(f"replay:{path}", Wanted(channels=1)))
    assert len(frames) == 3
    assert r"page 4 is uint8 (20, 30), not uint8 (48, 64)" in error
    with pytest.raises(DataError, match=r"a\.tif is damaged: page 4 is"):
        Media(Modality(band="nir"), 1, 480).read(path)
    content = bytearray(tiff(tmp_path / "b.tif", pictures(2)).read_bytes())
    first = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[first : first + 2], "little")
    content[first + 2 + 12 * count : first + 6 + 12 * count] = content[4:8]  # the second page is the first
    (tmp_path / "b.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.tif cannot be replayed: its pages do not end after 1"):
        open_camera(f"replay:{tmp_path}/b.tif")


def test_what_macos_puts_beside_images_is_none(tmp_path: Path) -> None:
    for k, image in enumerate(pictures(3)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), image)
        (tmp_path / f"._{k}.png").write_bytes(b"\0\5\x16\7")
    for what in (tmp_path, f"{tmp_path}/*.png"):
        np.testing.assert_array_equal(replayed(what)[0], pictures(3))
    np.testing.assert_array_equal(Media(Modality(band="nir"), 1, 480).read(tmp_path).frames, pictures(3))


@pytest.mark.parametrize(
    ("names", "globs"),
    [
        (["a_0001", "a_0002", "b_0001", "b_0002"], "a_*.png, b_*.png"),
        (["cam1_0001", "cam1_0002", "cam2_0001", "cam2_0002"], "cam1_*.png, cam2_*.png"),
    ],
)
def test_several_sequences_in_one_folder(tmp_path: Path, names: list[str], globs: str) -> None:
    for name, image in zip(names, pictures(4), strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    for read in (lambda: open_camera(f"replay:{tmp_path}"), lambda: Media(Modality(), 1, 480).read(tmp_path)):
        with pytest.raises(DataError, match="contains 2 sequences of images") as caught:
            read()
        assert globs in caught.value.found
        assert f"'replay:{tmp_path}/{globs.split(', ')[0]}'" in caught.value.fix
    np.testing.assert_array_equal(replayed(f"{tmp_path}/{globs.split(', ')[1]}")[0], pictures(4)[2:])
    np.testing.assert_array_equal(replayed(f"{tmp_path}/*.png")[0], pictures(4))


@pytest.mark.parametrize(
    "names",
    [
        ["frame1", "frame2", "frame10"],
        ["frame_1", "frame_2", "thumbnail"],
        ["first", "second", "third"],
        ["120001_1", "120001_2", "120002_1"],  # the time of day and the frame in the second
        ["2024-05-01_12-00-01_1", "2024-05-01_12-00-01_2", "2024-05-01_12-00-02_1"],
        ["take1_1", "take1_2", "take2_3"],  # counted on
    ],
)
def test_one_sequence_in_a_folder(tmp_path: Path, names: list[str]) -> None:
    for name, image in zip(names, pictures(3), strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    np.testing.assert_array_equal(replayed(tmp_path)[0], pictures(3))


@pytest.mark.parametrize("name", ["a.seq", "a.csq", "a.fff", "a.avi"])
def test_radiometric_recordings_say_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"FFF\0" + bytes(2000))
    for read in (lambda: open_camera(f"replay:{path}"), lambda: Media(Modality(), 1, 480).read(path)):
        with pytest.raises(DataError, match=r"radiometric recording of FLIR.* 16 bit grey.*flirpy.*Thermimage"):
            read()


def test_a_radiometric_jpeg_is_its_coloured_picture_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + b"\xff\xe1\0\x10FLIR\0\1\0\0FFF\0\0\0" + plain[2:])
    images._warn_of_radiometric_jpeg.cache_clear()
    for _ in range(2):
        assert replayed(path, 3)[0].shape == (1, 24, 32, 3)
    assert caplog.text.count("exiftool -b -RawThermalImage") == 1


def test_iterating_holds_to_an_interval(tmp_path: Path) -> None:
    path = write(tmp_path, Written("uneven.mkv", stamps=UNEVEN))
    assert [frame.number for frame in iterate_video(path, start=2, stop=5)] == [2, 3, 4]
