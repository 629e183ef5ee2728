"""Stamps beside a video: to the nanosecond, wherever a piece begins, and part of what a cache is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.readers.files.media import Media
from kd_edge.data.readers.files.settings import Modality
from kd_edge.data.readers.sidecar import beside, read_stamps, stamps_beside
from kd_edge.data.readers.video import read_video, video_info
from kd_edge.errors import DataError
from kd_edge.runtime.cameras import open_camera

EPOCH_NS = 123_456_789_012_345
STAMPS_NS = [0, 33_300_001, 66_600_002, 200_000_003, 233_300_004, 266_600_499, 299_500_500, 333_000_007]


@pytest.fixture
def video(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """Eight pictures, 0 to 7, thirty a second by the file's own stamps; others lie beside it."""
    path = write_video(tmp_path / "a.mkv", [np.full((16, 20), k, np.uint8) for k in range(8)], gop=1)
    beside(path).write_text("stamp_ns\n" + "".join(f"{EPOCH_NS + ns}\n" for ns in STAMPS_NS))
    return path


def test_they_are_the_frames_times(video: Path) -> None:
    clip = read_video(video, gray=True, whole=True)
    np.testing.assert_array_equal(clip.stamps_ns, STAMPS_NS)
    np.testing.assert_array_equal(clip.frames[:, 0, 0], range(8))
    info = video_info(video)
    assert (info.frames, info.fps) == (8, pytest.approx(7 / 0.333000007))
    probe = Media(Modality(), 1, 480).probe(video)
    assert (probe.frames, probe.seconds) == (8, pytest.approx(0.333000007))


@pytest.mark.parametrize(
    ("start_s", "end_s", "pictures"),
    [(0.0, 0.1, [0, 1, 2]), (0.0333, 0.2, [1, 2]), (0.1, 0.3, [3, 4, 5]), (0.2, 0.25, [3, 4]), (0.3, None, [6, 7])],
)
def test_a_piece_is_cut_by_them(video: Path, start_s: float, end_s: float | None, pictures: list[int]) -> None:
    clip = Media(Modality(), 1, 480).read(video, start_s, end_s)
    np.testing.assert_array_equal(clip.frames[:, 0, 0], pictures)
    np.testing.assert_array_equal(clip.stamps_ns, np.array(STAMPS_NS)[pictures] - STAMPS_NS[pictures[0]])


def test_a_replay_has_them_too(video: Path) -> None:
    camera = open_camera(f"replay:{video}")
    try:
        frames = list(iter(lambda: camera.read(1.0), None))
    finally:
        camera.close()
    assert [frame.captured_ns - frames[0].captured_ns for frame in frames] == STAMPS_NS


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"stamp_ns\n1\n2\n", "more pictures than the 2 stamps next to it"),
        (b"stamp_ns\n" + b"".join(b"%d\n" % k for k in range(1, 20)), "it ends after 8 frames, its header says 19"),
        (b"stamp_ns\n3\n2\n", "a.mkv.stamps next to it: 2 stamps that do not increase"),
        (b"stamp_ns\n", "no stamp"),
        (b"stamp_ns\nx\n", "a.mkv.stamps next to it: something other than whole numbers"),
        (b"1.5\n2.5\n", "something other than whole numbers"),
        (b"1,2\n", "something other than whole numbers"),
        (b"9" * 5000, "something other than whole numbers"),
        (b"0 " * 2_000_002, "more than 2,000,000 stamps"),
        (b"%d\n" % (1 << 70), "stamps of more than 64 bits"),
        (b"\xff\xfe\n", "something other than whole numbers"),
    ],
)
def test_what_does_not_fit_is_damage(video: Path, content: bytes, found: str) -> None:
    beside(video).write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mkv is damaged") as raised:
        read_video(video, whole=True)
    assert found in str(raised.value)


def test_none_beside_a_video_is_as_before(video: Path) -> None:
    beside(video).unlink()
    assert stamps_beside(video) is None
    assert read_video(video).stamps_ns[1] == pytest.approx(33_000_000, abs=1_000_000)


def test_stamps_need_no_heading(tmp_path: Path) -> None:
    file = tmp_path / "stamps.csv"
    file.write_text("5\n7\n")
    assert list(read_stamps(file)) == [0, 2]
