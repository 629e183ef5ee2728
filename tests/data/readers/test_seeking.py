"""Frames that are looked for by their moment are those that a clip of the whole file has."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data.readers.seeking import Seeker
from kd_edge.data.readers.video import read_video
from kd_edge.errors import DataError
from kd_edge.types import Clip
from tests.label.videos import numbered, write_video

COUNT = 60
FILES: dict[str, dict[str, Any]] = {
    "ffv1.mkv": {},
    "deep.mkv": {"pixels": "gray16le"},
    "b_frames.mp4": {"codec": "libx264", "pixels": "yuv420p", "g": "20", "bf": "3"},
    "open_groups.mkv": {"codec": "libx264", "pixels": "yuv420p", "g": "20", "bf": "3", "x264-params": "open-gop=1"},
    "one_group.mp4": {"codec": "libx264", "pixels": "yuv420p", "g": "600"},
    "stream.ts": {"codec": "libx264", "pixels": "yuv420p", "g": "20", "bf": "2"},
    "program.mpg": {"codec": "mpeg2video", "pixels": "yuv420p", "fps": 25, "g": "12", "bf": "2"},
    "ffv1.avi": {},
    "b_frames.avi": {"codec": "libx264", "pixels": "yuv420p", "g": "20", "bf": "2"},
    "pictures.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


@pytest.fixture(scope="module", params=FILES)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Clip]:
    """A file of each kind, and all its frames."""
    deep = request.param == "deep.mkv"
    frames = [numbered(4 * k, np.uint16 if deep else np.uint8) for k in range(COUNT)]
    path = write_video(tmp_path_factory.mktemp("films") / request.param, frames, **FILES[request.param])
    return path, read_video(path, gray=True)


def shown(seeker: Seeker, wanted_ns: int) -> tuple[int, int | None]:
    found = seeker.at(wanted_ns)[-1]
    return found.since_ns, found.next_ns


def test_every_frame_is_found_in_any_order(film: tuple[Path, Clip]) -> None:
    path, clip = film
    assert len(clip) == COUNT
    seeker = Seeker(path, 1, None)
    order = list(range(COUNT))
    random.Random(0).shuffle(order)
    for number in [*order, *range(COUNT), *reversed(range(COUNT))]:
        found = seeker.at(int(clip.stamps_ns[number]))[-1]
        assert found.since_ns == clip.stamps_ns[number]
        assert found.next_ns == (None if number + 1 == COUNT else clip.stamps_ns[number + 1])
        np.testing.assert_array_equal(found.image, clip.frames[number])
    seeker.close()


def test_between_two_frames_the_first_one_is_shown(film: tuple[Path, Clip]) -> None:
    path, clip = film
    seeker = Seeker(path, 1, None)
    one, other = int(clip.stamps_ns[30]), int(clip.stamps_ns[31])
    assert shown(seeker, (one + other) // 2) == (one, other)
    assert shown(seeker, other - 600_000)[0] == one  # 0.6 ms before the next one
    assert shown(seeker, other - 400_000)[0] == other  # 0.4 ms: the same moment
    assert shown(seeker, -5)[0] == 0
    assert shown(seeker, 10**15) == (int(clip.stamps_ns[-1]), None)
    assert shown(seeker, 0) == (0, int(clip.stamps_ns[1]))
    seeker.close()


def test_frames_passed_on_the_way_are_given_too(tmp_path: Path) -> None:
    frames = [numbered(4 * k) for k in range(COUNT)]
    path = write_video(tmp_path / "one.mp4", frames, codec="libx264", pixels="yuv420p", g="600")
    seeker = Seeker(path, 1, None)
    assert [found.since_ns for found in seeker.at(3_000_000_000)] == [k * 100_000_000 for k in range(21, 31)]
    seeker.close()


def test_uneven_stamps_are_kept(tmp_path: Path) -> None:
    stamps = [0, 33, 300, 340, 2000, 9000, 9010]
    path = write_video(tmp_path / "uneven.mkv", [numbered(k) for k in range(len(stamps))], stamps=stamps)
    seeker = Seeker(path, 1, None)
    found = seeker.at(5_000_000_000)[-1]
    assert (found.since_ns, found.next_ns, int(found.image[0, 0])) == (2_000_000_000, 9_000_000_000, 4)
    assert shown(seeker, 299_600_000) == (300_000_000, 340_000_000)
    seeker.close()


def test_a_file_that_breaks_off_is_shown_up_to_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", [numbered(k) for k in range(COUNT)], g="1")
    content = whole.read_bytes()
    (cut := tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    seeker = Seeker(cut, 1, None)
    last = seeker.at(10**12)[-1]
    assert last.next_ns is None
    assert 1_000_000_000 < last.since_ns < 5_000_000_000
    assert int(last.image[0, 0]) == last.since_ns // 100_000_000
    seeker.close()


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    (text := tmp_path / "text.mkv").write_text("no video at all")
    (noise := tmp_path / "noise.mkv").write_bytes(bytes(range(256)) * 40)
    for path in (text, noise, tmp_path / "absent.mkv"):
        with pytest.raises(DataError, match=path.name):
            Seeker(path, 1, None)


@pytest.mark.parametrize(
    ("beside", "because"),
    [
        ([round(k * 1e9 / 9.7) for k in range(COUNT)], "another rate than the file says"),
        ([k * 100_000_000 + (k % 7) * 60_000 for k in range(COUNT)], "what the file's stamps are rounded from"),
        ([k * 100_020_000 for k in range(COUNT)], "a clock that drifts away"),
    ],
)
def test_stamps_beside_the_file_are_the_frames_times(tmp_path: Path, beside: list[int], because: str) -> None:
    path = write_video(tmp_path / "one.mkv", [numbered(4 * k) for k in range(COUNT)], g="1")
    path.with_name("one.mkv.stamps").write_text("stamp_ns\n" + "\n".join(str(5 + ns) for ns in beside) + "\n")
    clip = read_video(path, gray=True)
    np.testing.assert_array_equal(clip.stamps_ns, beside)
    seeker = Seeker(path, 1, None)
    for number in (0, 1, 2, 59, 30, 31, 29, 0, 58):
        found = seeker.at(beside[number])[-1]
        assert (found.since_ns, int(found.image[0, 0])) == (beside[number], 4 * number), because
        assert found.next_ns == (None if number == COUNT - 1 else beside[number + 1])
    seeker.close()


def test_stamps_beside_the_file_that_are_damaged_are_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mkv", [numbered(k) for k in range(5)])
    path.with_name("one.mkv.stamps").write_text("stamp_ns\n5\n4\n")
    with pytest.raises(DataError, match=r"one\.mkv"):
        Seeker(path, 1, None)
