"""What a killed recorder leaves, cut off wherever it may be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.readers.sidecar import beside
from kd_edge.data.readers.video import read_video
from kd_edge.record.repair import repaired
from kd_edge.record.writer import FrameWriter
from kd_edge.runtime.cameras.lossless import LosslessWriter
from kd_edge.types import Frame

PERIOD_NS = 33_333_333
EPOCH_NS = 9_000_000_000


def stamp(k: int) -> int:
    return EPOCH_NS + k * PERIOD_NS


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 60, 80)).astype(np.uint8)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory, pictures: np.ndarray) -> Path:
    """A video as its writer leaves it when it is killed behind the last frame."""
    path = tmp_path_factory.mktemp("killed") / "a.mkv"
    with path.open("w+b", buffering=0) as file:
        writer = LosslessWriter(file, pictures[0], 30)
        for k, picture in enumerate(pictures):
            writer.add(picture, stamp(k) - stamp(0))
        content = path.read_bytes()
        writer.finish()
    path.write_bytes(content)
    beside(path).write_text("stamp_ns\n" + "".join(f"{stamp(k)}\n" for k in range(len(pictures))))
    return path


@pytest.fixture
def video(unfinished: Path, tmp_path: Path) -> Path:
    shutil.copy(beside(unfinished), tmp_path / "a.mkv.stamps")
    return Path(shutil.copy(unfinished, tmp_path / "a.mkv"))


def test_all_but_the_last_frame_is_there(video: Path, pictures: np.ndarray) -> None:
    assert repaired(video) == [stamp(k) for k in range(11)]
    clip = read_video(video, gray=True, whole=True)
    np.testing.assert_array_equal(clip.frames, pictures[:11])
    np.testing.assert_array_equal(clip.stamps_ns, np.arange(11) * PERIOD_NS)
    piece = read_video(video, gray=True, start_s=0.2, end_s=0.3, whole=True)
    np.testing.assert_array_equal(piece.frames, pictures[6:9])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.31, 0.5, 0.77, 0.999])
def test_wherever_it_breaks_off_whole_frames_stay(video: Path, pictures: np.ndarray, share: float) -> None:
    os.truncate(video, round(video.stat().st_size * share))
    kept = repaired(video)
    assert len(kept) == int(11 * share)  # pictures of noise are of one size
    if kept:
        np.testing.assert_array_equal(read_video(video, gray=True, whole=True).frames, pictures[: len(kept)])
        assert repaired(video) == kept  # nothing more is cut off
    else:
        assert not video.exists()
        assert not beside(video).exists()


def test_no_more_stamps_than_whole_lines(video: Path, pictures: np.ndarray) -> None:
    content = beside(video).read_bytes()
    beside(video).write_bytes(content[: content.index(b"%d\n" % stamp(5)) + 3])
    kept = repaired(video)
    assert kept[:5] == [stamp(k) for k in range(5)]
    assert len(kept) == 11  # the others as the video has them, to the millisecond
    assert kept[5:] == pytest.approx([stamp(k) for k in range(5, 11)], abs=500_000)
    np.testing.assert_array_equal(read_video(video, gray=True, whole=True).frames, pictures[:11])


@pytest.mark.parametrize("content", [b"", b"stamp_ns\n", b"stamp_ns\n12"])
def test_without_stamps_there_is_nothing(video: Path, content: bytes) -> None:
    beside(video).write_bytes(content)
    assert repaired(video) == []
    assert not video.exists()


def test_a_stamp_of_thousands_of_digits_is_none(video: Path) -> None:
    content = beside(video).read_bytes()
    beside(video).write_bytes(content[: content.index(b"%d\n" % stamp(5))] + b"9" * 5000 + b"\n")
    assert repaired(video)[:5] == [stamp(k) for k in range(5)]


@pytest.mark.parametrize("content", [b"", b"\x1a", b"\0" * 400, bytes(np.random.default_rng(3).bytes(400))])
def test_what_is_no_video_is_removed(video: Path, content: bytes) -> None:
    video.write_bytes(content)
    assert repaired(video) == []
    assert not video.exists()


def test_a_finished_video_stays_as_it_is(tmp_path: Path, pictures: np.ndarray) -> None:
    writer = FrameWriter(tmp_path / "b.mkv", 30, 10_000_000)
    for k, picture in enumerate(pictures):
        assert writer.put(Frame(picture, stamp(k), k, "ir"))
    assert writer.close() == [stamp(k) for k in range(12)]
    content = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert repaired(tmp_path / "b.mkv") == [stamp(k) for k in range(12)]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == content
    os.truncate(tmp_path / "b.mkv", content[tmp_path / "b.mkv"].__len__() // 2)  # as a power cut may leave it
    assert 4 <= len(repaired(tmp_path / "b.mkv")) <= 6
    assert len(read_video(tmp_path / "b.mkv", gray=True, whole=True)) in (4, 5, 6)
