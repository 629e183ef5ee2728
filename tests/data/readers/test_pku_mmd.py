from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.cache import frames
from kd_edge.data.check import check
from kd_edge.data.dataset import ActionInterval, LongVideo, LongVideos, Sample
from kd_edge.data.readers.pku_mmd import LABELS, PkuMmd
from kd_edge.data.splits import validation_split
from kd_edge.errors import DataError


def by_id(dataset: PkuMmd, sample_id: str) -> Sample:
    return next(s for s in dataset.samples if s.id == sample_id)


def rewrite(path: Path, *rows: str) -> None:
    path.write_text("\n".join(rows) + "\n")


def test_a_sample_is_a_row_of_the_labels(pku_tree: Path) -> None:
    dataset = PkuMmd(pku_tree)
    assert len(dataset.samples) == 3 * (26 + 25 + 11 + 10)
    assert len({s.id for s in dataset.samples}) == len(dataset.samples)
    assert dataset.samples[1] == Sample("0001-L_02_A02", "0001", "L", "02", 1)
    assert by_id(dataset, "0002-R_25_A51") == Sample("0002-R_25_A51", "0002", "R", "25", 50)
    assert (len(LABELS), LABELS[0], LABELS[11], LABELS[33], LABELS[50]) == (
        51,
        "bow",
        "giving something to other person",
        "standing up",
        "writing",
    )
    assert tuple(sorted(LABELS)) == LABELS  # the official numbers are alphabetical
    assert dataset.modalities == ("rgb", "ir")
    assert dataset.image_format("ir").band == "nir"


def test_only_the_interval_is_decoded_exactly(pku_tree: Path) -> None:
    rewrite(pku_tree / "Label" / "0001-M.txt", "5,0,0,2", "7,11,25,1", "51,100,119,1", "2,36,36,1")
    dataset = PkuMmd(pku_tree)
    for sample_id, first, last in (
        ("0001-M_01_A05", 0, 0),
        ("0001-M_02_A07", 11, 25),
        ("0001-M_03_A51", 100, 119),
        ("0001-M_04_A02", 36, 36),
    ):
        sample = by_id(dataset, sample_id)
        assert dataset.interval(sample) == ActionInterval(sample.label, first, last)
        numbers = list(range(first, last + 1))
        ir, rgb = dataset.open(sample, "ir"), dataset.open(sample, "rgb")
        assert ir.frames.shape[1:] == (53, 64)
        assert (ir.frames == 2 * np.uint8(numbers)[:, None, None]).all()
        assert rgb.frames[:, 9, 9].tolist() == [[2 * n, 0, 255 - 2 * n] for n in numbers]
        expected = [round(k / 30 * 1e9) for k in range(len(numbers))]
        assert np.abs(ir.stamps_ns - expected).max() <= 1
        assert np.array_equal(ir.stamps_ns, rgb.stamps_ns)
        assert dataset.probe(sample, "ir") == (len(numbers), (len(numbers) - 1) / 30)


def test_reversed_rows_are_swapped_and_reported(pku_tree: Path) -> None:
    rewrite(pku_tree / "Label" / "0001-M.txt", "5,10,19,2", "", "7,40,30,1")
    dataset = PkuMmd(pku_tree)
    clip = dataset.open(by_id(dataset, "0001-M_02_A07"), "ir")
    assert clip.frames[[0, -1], 0, 0].tolist() == [60, 80]
    assert "0001-M.txt, line 3: start and end are swapped" in dataset.remarks()


def test_an_interval_beyond_the_end(pku_tree: Path) -> None:
    rewrite(pku_tree / "Label" / "0001-M.txt", "5,110,125,2", "7,120,130,1")
    dataset = PkuMmd(pku_tree)
    over, beyond = by_id(dataset, "0001-M_01_A05"), by_id(dataset, "0001-M_02_A07")
    assert dataset.open(over, "ir").frames[:, 0, 0].tolist() == list(range(220, 240, 2))
    assert dataset.probe(over, "ir").frames == 10
    with pytest.raises(DataError, match=r"0001-M-infrared\.avi is damaged: it ends before frame 120"):
        dataset.open(beyond, "ir")
    with pytest.raises(DataError, match=r"0001-M\.avi has 120 frames, 0001-M_02_A07 begins at frame 120"):
        dataset.probe(beyond, "rgb")
    assert dataset.remarks()[-2:] == (
        "0001-M_01_A05 ends at frame 125, 0001-M.avi has 120: existing ones are used",
        "0001-M_01_A05 ends at frame 125, 0001-M-infrared.avi has 120: existing ones are used",
    )


def test_official_split_files(pku_tree: Path) -> None:
    dataset = PkuMmd(pku_tree)
    split = dataset.split("cross_subject")
    assert {s.subject for s in split.train} == {"0001", "0002", "0004"}
    assert {s.subject for s in split.test} == {"0003"}
    assert (len(split.train), len(split.test)) == (183, 33)
    split = dataset.split("cross_view")
    assert {s.view for s in split.train} == {"M", "R"}
    assert {s.view for s in split.test} == {"L"}
    assert (len(split.train), len(split.test)) == (144, 72)
    with pytest.raises(DataError, match="did you mean 'cross_view'"):
        dataset.split("cross-view")
    assert dataset.remarks() == (
        "12 of 1,076 long videos, 216 of 21,545 labelled actions of the complete data set",
        "cross_subject: 9 of 944 training and 3 of 132 test videos",
        "cross_view: 8 of 717 training and 4 of 359 test videos",
    )


def test_a_split_file_may_list_what_is_not_here_and_leave_out_what_is(pku_tree: Path) -> None:
    rewrite(
        pku_tree / "Split" / "cross-subject.txt",
        "Training videos:",
        "0001-L, 0001-M, 0002-L, 0002-M, 0999-L,",
        "Validation videos:",
        "0003-L, 0003-M, 0001-R, 0998-R,",
    )
    dataset = PkuMmd(pku_tree)
    split = dataset.split("cross_subject")
    assert {s.id[:6] for s in split.train} == {"0001-L", "0001-M", "0002-L", "0002-M"}
    assert {s.id[:6] for s in split.test} == {"0001-R", "0003-L", "0003-M"}
    remarks = "\n".join(dataset.remarks())
    assert "cross_subject: 4 of 944 training and 3 of 132 test videos" in remarks
    assert "cross_subject: performances on both sides: '0001'" in remarks
    assert "cross_subject: on neither side: '0002-R', '0003-R', '0004-L', '0004-M', '0004-R'" in remarks
    names = "0001-L, 0002-L,"
    rewrite(pku_tree / "Split" / "cross-subject.txt", "Training videos:", names, "Validation videos:", "0001-L,")
    with pytest.raises(DataError, match=r"'cross_subject' has '0001-L_01_A01', .* and 21 more on both sides"):
        PkuMmd(pku_tree).split("cross_subject")
    rewrite(pku_tree / "Split" / "cross-subject.txt", "Training videos:", "0001-L,", "Validation videos:", "0003-L,")
    with pytest.raises(DataError, match=r"no training sample of 'pushing other person', .* and 20 more"):
        PkuMmd(pku_tree).split("cross_subject")


def test_without_split_files_only_the_views_can_be_told(pku_tree: Path) -> None:
    before = PkuMmd(pku_tree).split("cross_view")
    shutil.rmtree(pku_tree / "Split")
    dataset = PkuMmd(pku_tree)
    assert dataset.split("cross_view") == before
    with pytest.raises(DataError, match=r"no file cross-subject\.txt .*choose the split cross_view"):
        dataset.split("cross_subject")
    remarks = "\n".join(dataset.remarks())
    assert "cross_subject is not possible: no file cross-subject.txt" in remarks
    assert "cross_view is derived from the views (test L): no file cross-view.txt" in remarks


def test_whole_performances_are_held_out_for_validation(pku_tree: Path) -> None:
    train, held_out = validation_split(PkuMmd(pku_tree).split("cross_subject").train, ["0004"])
    assert {s.subject for s in train} == {"0001", "0002"}
    assert {s.id[:6] for s in held_out} == {"0004-L", "0004-M", "0004-R"}


def test_long_videos_of_the_test_side(pku_tree: Path) -> None:
    rewrite(pku_tree / "Label" / "0003-M.txt", "5,0,9,2", "7,40,30,1")
    dataset = PkuMmd(pku_tree)
    assert isinstance(dataset, LongVideos)
    videos = dataset.long_videos("cross_subject")
    assert [v.id for v in videos] == ["0003-L", "0003-M", "0003-R"]
    assert videos[1] == LongVideo("0003-M", "M", (ActionInterval(4, 0, 9), ActionInterval(6, 30, 40)))
    assert [v.id for v in dataset.long_videos("cross_view")] == ["0001-L", "0002-L", "0003-L", "0004-L"]
    frames = dataset.frames(videos[1], "ir")
    image, stamp_ns = next(frames)
    assert (image.shape, image.dtype, int(image[0, 0]), stamp_ns) == ((53, 64), np.uint8, 0, 0)
    rest = [(int(image[0, 0]), stamp_ns) for image, stamp_ns in frames]
    assert rest == [(2 * n, round(n / 30 * 1e9)) for n in range(1, 120)]
    image, _ = next(dataset.frames(videos[1], "rgb"))
    assert (image.shape, image[0, 0].tolist()) == ((36, 64, 3), [0, 0, 255])
    with pytest.raises(DataError, match="no modality 'nir'"):
        next(dataset.frames(videos[1], "nir"))


@pytest.mark.slow
def test_the_check_names_what_is_missing_and_damaged(pku_tree: Path, write_video: Callable[..., Path]) -> None:
    data = pku_tree / "Data"
    (data / "IR_VIDEO" / "0003-L-infrared.avi").unlink()
    (data / "IR_VIDEO" / "0003-M-infrared.avi").write_bytes(b"damaged")
    (data / "IR_VIDEO" / "0004-R-infrared.avi").unlink()
    (data / "RGB_VIDEO" / "0004-R.avi").unlink()
    write_video(data / "RGB_VIDEO" / "0077-L.avi", [np.zeros((36, 64, 3), np.uint8)])
    for quick in (True, False):
        dataset = PkuMmd(pku_tree)
        report = check(dataset, quick=quick)
        assert (report.samples, report.complete, report.quick) == (216 - 10, 216 - 10 - 22, quick)
        rgb, ir = report.modalities
        assert (rgb.usable, ir.usable) == (206, 206 - 22)
        assert "no file" in ir.unusable["0003-L_01_A01"]
        assert "IR_VIDEO/0003-L-infrared.avi" in ir.unusable["0003-L_01_A01"]
        assert "0003-M-infrared.avi is damaged" in ir.unusable["0003-M_11_A51"]
        assert rgb.frames == (4, 4, 4)
        assert report.gaps == dict.fromkeys(report.gaps, "no video")
        assert sorted(report.gaps)[0] == "0004-R_01_A02"
        assert len(report.gaps) == 10
        assert report.per_subject == {"0001": 78, "0002": 75, "0003": 33, "0004": 20}
        assert "ir is missing in 1 of 11 videos: '0003-L'" in report.remarks
        assert "not read, without labels file: '0077-L'" in report.remarks


def test_a_cut_off_video_loses_only_what_is_cut_off(pku_tree: Path, write_video: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    path = pku_tree / "Data" / "IR_VIDEO" / "0001-M-infrared.avi"
    write_video(path, [rng.integers(0, 255, (48, 64), np.uint8) for _ in range(120)], codec="mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dataset = PkuMmd(pku_tree)
    assert len(dataset.open(by_id(dataset, "0001-M_01_A01"), "ir")) == 4
    with pytest.raises(DataError, match=r"0001-M-infrared\.avi is damaged: it ends after \d+ frames, its header says"):
        dataset.open(by_id(dataset, "0001-M_25_A25"), "ir")
    with pytest.raises(DataError, match="bytes are missing at its end"):
        dataset.probe(by_id(dataset, "0001-M_01_A01"), "ir")
    video = LongVideo("0001-M", "M", ())
    with pytest.raises(DataError, match=r"0001-M-infrared\.avi is damaged"):
        list(dataset.frames(video, "ir"))


def test_the_content_key_follows_video_interval_and_decoding(pku_tree: Path) -> None:
    dataset = PkuMmd(pku_tree)
    first, second = dataset.samples[:2]
    keys = {dataset.content_key(s, m) for s in (first, second) for m in ("rgb", "ir")}
    assert len(keys) == 4
    assert PkuMmd(pku_tree, decode_height_px=32).content_key(first, "ir") not in keys
    rewrite(pku_tree / "Label" / "0001-L.txt", "1,3,7,2")
    assert PkuMmd(pku_tree).content_key(first, "ir") not in keys
    with pytest.raises(DataError, match="no modality 'depth'"):
        dataset.content_key(first, "depth")


def test_a_wrong_label_stops_everything_and_is_named(pku_tree: Path) -> None:
    rewrite(pku_tree / "Label" / "0002-R.txt", "3,1,2,1", "52,3,4,1")
    with pytest.raises(DataError, match=r"Label/0002-R\.txt, line 2: action 52\. Expected 1 to 51"):
        PkuMmd(pku_tree)


def test_a_copy_without_infrared(pku_tree: Path) -> None:
    shutil.rmtree(pku_tree / "Data" / "IR_VIDEO")
    dataset = PkuMmd(pku_tree)
    assert dataset.modalities == ("rgb",)
    with pytest.raises(DataError, match=r"no ir recording\. Expected Data/IR_VIDEO/XXXX-V-infrared\.avi"):
        dataset.image_format("ir")


def test_through_the_frame_cache(pku_tree: Path, tmp_path: Path) -> None:
    dataset = PkuMmd(pku_tree)
    samples = dataset.samples[:30]
    ready = frames.prepare(dataset, samples, "ir", resize_px=32, root=tmp_path / "cache")
    assert ready.samples == samples
    assert ready.skipped == {}
    assert ready.clip("0001-L_03_A03").frames[:, 0, 0].tolist() == [22, 24, 26, 28]
    again = frames.prepare(PkuMmd(pku_tree), samples, "ir", resize_px=32, root=tmp_path / "cache")
    assert again.fingerprint == ready.fingerprint
