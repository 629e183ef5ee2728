from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kd_edge.data.readers import timing
from kd_edge.data.readers.container import decoded
from kd_edge.data.readers.video import iterate_video, read_video, video_info
from kd_edge.errors import DataError

STRIPES = 7  # bits of a frame number, black or white: survives lossy codecs


def numbered(frames: int) -> list[np.ndarray]:
    images = []
    for number in range(frames):
        bits = [255 * (number >> bit & 1) for bit in range(STRIPES)]
        images.append(np.repeat(np.repeat(np.uint8([bits]), 16, axis=1), 48, axis=0))
    return images


def numbers(frames: np.ndarray) -> list[int]:
    means = frames.reshape(len(frames), frames.shape[1], STRIPES, -1).mean(axis=(1, 3))
    return [int(sum((mean > 127) << bit for bit, mean in enumerate(row))) for row in means]


OPEN_GROUPS = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}


@pytest.mark.parametrize(
    ("name", "codec", "b_frames", "options", "decoded_for_two"),
    [
        ("a.avi", "ffv1", 0, {}, 14),
        ("a.avi", "mpeg4", 0, {}, 14),
        ("a.avi", "mpeg4", 2, {}, 40),  # an AVI with B-frames has stamps in coding order
        ("a.avi", "libx264", 0, {}, 14),  # FFmpeg stamps these one frame late
        ("a.avi", "libx264", 2, {}, 40),
        ("a.avi", "libx264", 3, OPEN_GROUPS, 100),  # and these key frames are stamped wrongly: counted from the start
        ("a.mp4", "libx264", 2, {}, 14),
        ("a.mkv", "mpeg4", 0, {}, 14),  # stamps in whole milliseconds
    ],
)
def test_intervals_are_exact(
    tmp_path: Path,
    write_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    codec: str,
    b_frames: int,
    options: dict[str, str],
    decoded_for_two: int,
) -> None:
    path = write_video(tmp_path / name, numbered(100), codec=codec, gop=12, b_frames=b_frames, options=options)
    whole = read_video(path, gray=True, whole=True)
    assert numbers(whole.frames) == list(range(100))
    assert np.abs(whole.stamps_ns - np.arange(100) * 1e9 / 30).max() < 1e6
    for start, stop in ((0, 1), (11, 13), (12, 13), (23, 61), (1, 100), (99, 100), (98, 200)):
        clip = read_video(path, gray=True, start=start, stop=stop, whole=True)
        assert numbers(clip.frames) == list(range(start, min(stop, 100)))
        assert clip.stamps_ns[0] == 0
    decoded: list[object] = []
    monkeypatch.setattr(timing, "decoded", watched(timing.decoded, decoded))
    read_video(path, start=94, stop=96)
    assert 3 <= len(decoded) <= decoded_for_two  # one more to see that the interval is over; not from the file's start


def watched(original: Callable[..., Iterator[object]], seen: list[object]) -> Callable[..., object]:
    def watching(*arguments: object) -> Iterator[object]:
        for found in original(*arguments):
            seen.append(None)
            yield found

    return watching


def test_gray_is_one_channel_and_exact_for_gray_video(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    images = [np.full((48, 64), value, np.uint8) for value in (0, 1, 17, 254, 255)]
    clip = read_video(write_video(tmp_path / "a.avi", images), gray=True)
    assert clip.frames.shape == (5, 48, 64)
    assert clip.frames[:, 20, 20].tolist() == [0, 1, 17, 254, 255]
    colour = [np.full((48, 64, 3), (255, 0, 0), np.uint8)]
    path = write_video(tmp_path / "b.avi", colour)
    assert read_video(path).frames[0, 5, 5].tolist() == [255, 0, 0]
    assert abs(int(read_video(path, gray=True).frames[0, 5, 5]) - 76) <= 1  # luminance of red: 0.299 x 255


def test_higher_pictures_are_scaled_down_by_area(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    image = np.zeros((48, 64), np.uint8)
    image[:, ::2] = 200  # columns one pixel wide: any two neighbours average to 100
    path = write_video(tmp_path / "a.avi", [image])
    small = read_video(path, gray=True, max_height_px=24).frames
    assert small.shape == (1, 24, 32)
    assert np.abs(small.astype(int) - 100).max() <= 1
    assert read_video(path, gray=True, max_height_px=48).frames.shape == (1, 48, 64)
    assert np.array_equal(read_video(path, gray=True, max_height_px=100).frames[0], image)
    assert read_video(path, max_height_px=16).frames.shape == (1, 16, 21, 3)


def test_the_iterator_holds_one_frame(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    image = np.zeros((240, 320), np.uint8)
    path = write_video(tmp_path / "a.avi", [image] * 60)
    tracemalloc.start()
    found = [(frame.number, frame.stamp_ns) for frame in iterate_video(path, gray=True, start=10)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0] == (10, 0)
    assert found[-1] == (59, pytest.approx(49e9 / 30, abs=1))
    assert peak < 5 * image.nbytes


def test_a_file_that_ends_before_its_header_says(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64), np.uint8) for _ in range(60)]
    path = write_video(tmp_path / "a.avi", noise, codec="mpeg4")  # this decoder conceals a cut frame
    assert video_info(path) == (60, 30.0, 48, 64, 2.0, "uint8", 3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    part = len(read_video(path, gray=True))
    assert 20 < part < 35
    with pytest.raises(DataError, match=rf"a\.avi is damaged: it ends after {part} frames, its header says 60"):
        read_video(path, gray=True, whole=True)
    assert len(read_video(path, gray=True, start=5, stop=15, whole=True)) == 10  # before the cut
    with pytest.raises(DataError, match="it ends after"):
        read_video(path, gray=True, start=part - 5, stop=part + 5, whole=True)
    with pytest.raises(DataError, match="it ends before frame 50"):
        read_video(path, gray=True, start=50)
    with pytest.raises(DataError, match=r"a\.avi is damaged: \d+ bytes are missing at its end"):
        video_info(path)


def test_damage_inside_a_file_says_how_far_it_goes(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    path = write_video(tmp_path / "a.avi", numbered(60))  # this decoder does not conceal
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.avi is damaged: .*after \d+ frames"):
        read_video(path)


@pytest.mark.parametrize(
    ("codec", "place", "lost"),
    [
        ("mjpeg", 0.27, 0.03),  # several frames and the headers between them
        ("mjpeg", 0.57, 0.01),
        ("mpeg4", 0.27, 0.03),
        ("mpeg4", 0.27, 0.0005),  # inside one frame
        ("libx264", 0.27, 0.01),
        ("libx264", 0.31, 0.02),  # this decoder says nothing: the index does
        ("libx264", 0.7, 0.01),
    ],
)
def test_zeros_inside_a_file_are_refused_and_shift_no_frame(
    tmp_path: Path, write_video: Callable[..., Path], codec: str, place: float, lost: float
) -> None:
    rng = np.random.default_rng(0)
    images = [image // 2 + rng.integers(0, 100, image.shape, np.uint8) for image in numbered(100)]
    path = write_video(tmp_path / "a.avi", images, codec=codec, options={"b": "20000000"})
    assert numbers(read_video(path, gray=True, whole=True).frames) == list(range(100))
    content = bytearray(path.read_bytes())
    first, size = int(place * len(content)), int(lost * len(content))
    content[first : first + size] = bytes(size)
    path.write_bytes(content)
    harmed = int(100 * place)
    for start, stop in ((0, None), (harmed - 3, harmed + 20)):
        with pytest.raises(DataError, match=r"a\.avi is damaged: .*after \d+ frames"):
            read_video(path, gray=True, start=start, stop=stop, whole=True)
    for start in (0, harmed + 25):  # before it, and from a key frame behind it
        found = read_video(path, gray=True, start=start, stop=start + 5, whole=True)
        assert numbers(found.frames) == list(range(start, start + 5))


def test_a_picture_marked_as_damaged_is_refused(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    class Marked(NamedTuple):
        is_corrupt: bool

    class Packet(NamedTuple):
        pictures: list[Marked]
        is_corrupt: bool = False
        dts: int | None = None
        is_keyframe: bool = True
        size: int = 1

        def decode(self) -> list[Marked]:
            return self.pictures

    sound, broken = Marked(False), Marked(True)
    container = SimpleNamespace(
        format=SimpleNamespace(name="mov"), demux=lambda _: [Packet([sound]), Packet([sound, broken])]
    )
    pictures = decoded(container, SimpleNamespace(codec_context=SimpleNamespace(name="h264")))
    assert [next(pictures), next(pictures)] == [sound, sound]
    with pytest.raises(ValueError, match="a picture is damaged"):
        next(pictures)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_open_groups_are_sound_wherever_reading_begins(
    tmp_path: Path, write_video: Callable[..., Path], name: str
) -> None:
    path = write_video(tmp_path / name, numbered(60), codec="libx264", gop=12, b_frames=3, options=OPEN_GROUPS)
    for start in range(0, 58, 3):
        assert numbers(read_video(path, gray=True, start=start, stop=start + 2, whole=True).frames) == [
            start,
            start + 1,
        ]


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codec=st.sampled_from(["mpeg4", "mjpeg", "ffv1"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    start=st.integers(0, 12),
)
def test_any_damage_is_a_data_error(
    tmp_path_factory: pytest.TempPathFactory,
    write_video: Callable[..., Path],
    codec: str,
    cut: float,
    flips: list[tuple[float, int]],
    start: int,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    if not (sound := folder / f"{codec}.avi").exists():
        write_video(sound, numbered(10), codec=codec, gop=4)
    damaged = bytearray(sound.read_bytes()[: int(cut * sound.stat().st_size)])
    for place, value in flips if damaged else []:
        damaged[int(place * len(damaged))] = value
    path = folder / "a.avi"
    path.write_bytes(damaged)
    for read in (lambda: read_video(path, gray=True, start=start, max_height_px=100), lambda: video_info(path)):
        try:
            found = f"a.avi has {len(read())}"
        except DataError as error:
            found = error.found
        assert "a.avi" in found


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a video" * 100, b"RIFF\xff\xff\xff\xffAVI " + b"\0" * 500])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    for read in (read_video, video_info, lambda p: list(iterate_video(p, start=3))):
        with pytest.raises(DataError, match=r"a\.avi is damaged"):
            read(path)
    with pytest.raises(DataError, match=r"no file .*b\.avi"):
        video_info(tmp_path / "b.avi")


def test_an_unknown_codec_and_an_absurd_rate_are_damage(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    path = write_video(tmp_path / "a.avi", numbered(10), codec="mpeg4")
    content = path.read_bytes()
    assert content.count(b"FMP4") == 2
    for changed, reason in (
        (content.replace(b"FMP4", b"ZZZZ"), "its header names no known codec"),
        (content.replace(b"\1\0\0\0\x1e\0\0\0", b"\1\0\0\0\xff\xff\xff\x7f"), "frames per second"),  # of 1/30 s
    ):
        path.write_bytes(changed)
        for read in (read_video, video_info):
            with pytest.raises(DataError, match=rf"a\.avi is damaged: .*{reason}"):
                read(path)


def test_a_video_without_a_frame_in_the_interval(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    path = write_video(tmp_path / "a.avi", numbered(10))
    with pytest.raises(DataError, match="it ends before frame 10"):
        read_video(path, start=10, stop=20, whole=True)
    assert list(iterate_video(path, start=10)) == []
