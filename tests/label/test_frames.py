"""Pictures for the page: little is read, little is kept, and they are the recording's."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.media import Media
from kd_edge.data.readers.files.settings import Modality
from kd_edge.data.readers.video import video_info
from kd_edge.errors import DataError
from kd_edge.label import frames as module
from kd_edge.label.edits import Add
from kd_edge.label.frames import Contrast, Frames, Picture
from kd_edge.label.labels import Labels, RefusedError
from tests.label.videos import numbered, write_video


def media(**settings: object) -> Media:
    return Media(Modality(**settings), 1, module.HEIGHT_PX)


def middle(picture: Picture) -> int:
    return int(np.median(cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_UNCHANGED)))


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(-1 if size is None else size)
        Counted.total += len(content)
        return content


def test_a_long_recording_is_not_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 255, (48, 64), np.uint8) for _ in range(1200)]
    path = write_video(tmp_path / "long.mkv", images, g="1")
    monkeypatch.setattr("kd_edge.data.readers.container.open_regular", Counted)
    frames = Frames()
    shown = frames.picture(path, media(), 100.0)
    assert (shown.since_s, shown.next_s) == (100.0, 100.1)
    assert Counted.total < path.stat().st_size / 3
    assert path.stat().st_size > 3_500_000
    frames.close()


def test_frames_that_were_seen_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", 10 * 48 * 64)
    path = write_video(tmp_path / "one.mkv", [numbered(k) for k in range(60)], g="1")
    frames = Frames()
    for moment in (0.0, *np.arange(3.0, 5.0, 0.1), 0.0, 1.0):
        assert middle(frames.picture(path, media(), float(moment))) == round(float(moment) * 10)
    film = frames._open[path]
    assert len(film._kept) == len(film._moments) == 10
    assert film._bytes == 10 * 48 * 64
    assert sorted(film._kept) == film._moments
    decoded: list[int] = []
    seek = film._at
    assert seek is not None
    monkeypatch.setattr(film, "_at", lambda wanted: decoded.append(wanted) or seek(wanted))
    frames.picture(path, media(), 0.95)
    assert decoded == []
    frames.picture(path, media(), 2.0)
    assert decoded == [2_000_000_000]
    frames.close()


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_FILES", 2)
    paths = [write_video(tmp_path / f"{k}.mkv", [numbered(10 * k)] * 3) for k in range(4)]
    frames = Frames()
    for _ in range(2):
        for k, path in enumerate(paths):
            assert middle(frames.picture(path, media(), 0.1)) == 10 * k
            assert len(frames._open) <= 2
    frames.close()
    assert len(frames._open) == 0


def test_images_and_arrays_are_shown_by_their_stamps(tmp_path: Path) -> None:
    (folder := tmp_path / "images").mkdir()
    for k in range(4):
        cv2.imwrite(str(folder / f"{k}.png"), numbered(50 * k))
    (folder / "stamps.csv").write_text("stamp_ns\n7000000000\n7100000000\n9000000000\n9500000000\n")
    np.save(array := tmp_path / "array.npy", np.stack([numbered(50 * k) for k in range(4)]))
    frames = Frames()
    shown = [frames.picture(folder, media(), s) for s in (0.0, 0.05, 0.1, 1.9, 2.0, 99.0)]
    assert [middle(one) for one in shown] == [0, 0, 50, 50, 100, 150]
    assert [(one.since_s, one.next_s) for one in shown[2:]] == [(0.1, 2.0), (0.1, 2.0), (2.0, 2.5), (2.5, None)]
    assert middle(frames.picture(folder, media(), 1.2, nearest=True)) == 100
    assert middle(frames.picture(folder, media(), 1.0, nearest=True)) == 50
    assert [middle(frames.picture(array, media(fps=2.0), s)) for s in (0.4, 0.5, 1.6)] == [0, 50, 150]
    frames.close()


def test_pictures_are_turned_as_the_reader_turns_them(tmp_path: Path) -> None:
    image = np.zeros((48, 64), np.uint8)
    image[:8] = 200
    path = write_video(tmp_path / "lying.mkv", [image] * 3)
    np.save(array := tmp_path / "lying.npy", np.stack([image] * 3))
    frames = Frames()
    for file in (path, array):
        jpeg = frames.picture(file, media(rotation=90), 0.1).jpeg
        shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown.shape == (64, 48)
        assert shown[:, -6:].min() > 180
        assert shown[:, :-10].max() < 20
    frames.close()


def test_contrast_of_16_bit_is_that_of_the_whole_recording(tmp_path: Path) -> None:
    stack = np.full((50, 48, 64), 1000, np.uint16)
    stack[-1] = 3000
    np.save(path := tmp_path / "dark.npy", stack)
    np.save(even := tmp_path / "even.npy", np.full((3, 48, 64), 7, np.uint16))
    frames = Frames()
    assert frames.contrast(path, media(fps=10.0), 4.9) == Contrast(1000, 3000)
    assert middle(frames.picture(path, media(fps=10.0), 0.0)) == 0
    assert middle(frames.picture(path, media(fps=10.0), 4.9)) == 255
    assert middle(frames.picture(path, media(fps=10.0), 0.0, contrast=Contrast(0, 2000))) == 127
    assert middle(frames.picture(path, media(fps=10.0), 0.0, contrast=Contrast(5, 5))) == 255
    assert frames.contrast(even, media(), 0.1) == Contrast(7, 8)
    frames.close()


def test_a_file_whose_header_tells_no_length_has_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "live_ir.mkv", [numbered(k) for k in range(60)], container={"live": "1"})
    write_video(tmp_path / "other_ir.mkv", [numbered(k) for k in range(60)])
    (tmp_path / "manifest.csv").write_text("id,label,ir\na,,live_ir.mkv\nb,,other_ir.mkv\n")
    assert (video_info(path).frames, video_info(path).seconds) == (0, 0.0)
    labels = Labels(tmp_path)
    assert [labels.seconds(0), labels.seconds(1)] == [pytest.approx(5.9), pytest.approx(5.9)]
    labels.apply(Add(kind="add", recording=0, start_s=4.0, end_s=5.901, label="wave"), 1)
    with pytest.raises(RefusedError, match=r"lasts 5\.900 s"):
        labels.apply(Add(kind="add", recording=0, start_s=5.95, end_s=6.0, label="wave"), 2)
    labels.apply(Add(kind="add", recording=1, start_s=0.0, end_s=1.0, label="kick"), 2)
    found = Files(tmp_path)
    clip = found.open(next(sample for sample in found.samples if sample.id == "live_ir@4"), "ir")
    assert clip.frames[:, 0, 0].tolist() == list(range(40, 60))


def test_what_holds_no_pictures_is_told(tmp_path: Path) -> None:
    (signal := tmp_path / "acc.csv").write_text("time,x,y,z\n0,1,2,3\n1,1,2,3\n")
    np.save(floats := tmp_path / "floats.npy", np.zeros((5, 3), np.float32))
    frames = Frames()
    for path in (signal, floats, tmp_path / "absent.mkv"):
        with pytest.raises(DataError, match=path.name):
            frames.picture(path, media(), 0.0)
    frames.close()
