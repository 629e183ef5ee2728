from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data import NtuRgbdData
from kd_edge.data.cache import frames
from kd_edge.data.check import check
from kd_edge.data.dataset import Sample
from kd_edge.data.readers.ntu_rgbd import LABELS, OFFICIAL_PER_CLASS, TRAINING_SUBJECTS, NtuRgbd
from kd_edge.errors import DataError


def touch(root: Path, *names: str) -> Path:
    """Empty files: enough to list samples, not to decode them."""
    for name in names:
        for modality in ("rgb", "ir"):
            path = root / f"nturgb+d_{modality}" / f"{name}_{modality}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def by_id(dataset: NtuRgbd, sample_id: str) -> Sample:
    return next(s for s in dataset.samples if s.id == sample_id)


def test_names_tell_setup_view_subject_trial_and_class(ntu_tree: Path) -> None:
    dataset = NtuRgbd(ntu_tree)
    assert len(dataset.samples) == 90
    assert by_id(dataset, "S001C002P003R001A010") == Sample("S001C002P003R001A010", "P003", "C002", "S001R001", 9)
    assert dataset.labels == (
        "drink water",
        "eat meal/snack",
        "brushing teeth",
        "brushing hair",
        "drop",
        "pickup",
        "throw",
        "sitting down",
        "standing up (from sitting position)",
        "clapping",
    )
    assert dataset.flip_labels == tuple(range(10))
    assert dataset.modalities == ("rgb", "ir")
    assert dataset.image_format("ir").band == "nir"
    assert (dataset.image_format("ir").channels, dataset.image_format("rgb").channels) == (1, 3)


def test_the_two_streams_of_a_sample_are_one_performance(ntu_tree: Path) -> None:
    dataset = NtuRgbd(ntu_tree)
    sample = by_id(dataset, "S001C001P002R001A004")
    ir, rgb = dataset.open(sample, "ir"), dataset.open(sample, "rgb")
    assert ir.frames.shape == (10, 53, 64)
    assert rgb.frames.shape == (10, 36, 64, 3)
    assert np.array_equal(ir.stamps_ns, rgb.stamps_ns)
    assert np.array_equal(ir.stamps_ns, np.round(np.arange(10) / 30 * 1e9))
    assert np.array_equal(rgb.frames[..., 0], ir.frames[:, :36])
    assert ir.frames[2, 0, [19, 20, 23, 24]].tolist() == [40, 200, 200, 40]  # the bar of action 4 at its third frame
    assert NtuRgbd(ntu_tree, decode_height_px=32).open(sample, "rgb").frames.shape == (10, 32, 57, 3)


def test_sixty_official_classes() -> None:
    assert len(LABELS) == len(set(LABELS)) == 60
    named = {5: "drop", 11: "reading", 24: "kicking something", 27: "jump up", 43: "falling", 49: "use a fan"}
    named |= {50: "punching", 55: "hugging", 60: "walking apart"}
    assert all(LABELS[number - 1].startswith(name) for number, name in named.items())


def test_sides_of_the_protocols(tmp_path: Path) -> None:
    """The lists are those of the paper that introduces the data set, typed anew."""
    training = {1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38}
    names = [
        f"S001C{c:03d}P{p:03d}R001A{a:03d}" for c, p, a in itertools.product((1, 2, 3), range(1, 41), range(1, 11))
    ]
    dataset = NtuRgbd(touch(tmp_path, *names))
    split = dataset.split("cross_subject")
    assert {int(s.subject[1:]) for s in split.train} == training
    assert {int(s.subject[1:]) for s in split.test} == set(range(1, 41)) - training
    assert len(split.train) == len(split.test) == 600
    split = dataset.split("cross_view")
    assert {s.view for s in split.train} == {"C002", "C003"}
    assert {s.view for s in split.test} == {"C001"}
    assert (len(split.train), len(split.test)) == (800, 400)
    assert len(TRAINING_SUBJECTS) == 20
    with pytest.raises(DataError, match="did you mean 'cross_subject'"):
        dataset.split("cross-subject")


def test_official_counts() -> None:
    assert [60 * n for n in OFFICIAL_PER_CLASS["cross_subject"]] == [40_320, 16_560]
    assert [60 * n for n in OFFICIAL_PER_CLASS["cross_view"]] == [37_920, 18_960]


def test_all_classes_or_ten(tmp_path: Path) -> None:
    touch(tmp_path, "S001C001P001R001A010", "S001C001P001R001A011", "S017C003P040R002A060", "S018C001P001R001A061")
    assert [s.id[-4:] for s in NtuRgbd(tmp_path).samples] == ["A010"]
    dataset = NtuRgbd(tmp_path, actions="all")
    assert [s.id[-4:] for s in dataset.samples] == ["A010", "A011", "A060"]
    assert dataset.samples[-1] == Sample("S017C003P040R002A060", "P040", "C003", "S017R002", 59)
    assert len(dataset.labels) == 60
    assert any("2 of NTU RGB+D 120" in remark for remark in dataset.remarks())


def test_files_are_found_anywhere_and_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "disk" / "s001").mkdir(parents=True)
    (tmp_path / "disk" / "s001" / "S001C001P001R001A001_rgb.AVI").touch()
    (tmp_path / "s001c001p001r001a001_IR.avi").touch()
    (tmp_path / "S001C001P001R001A001.skeleton").touch()
    (tmp_path / "disk" / "round").symlink_to(tmp_path, target_is_directory=True)  # a circle is walked once
    dataset = NtuRgbd(tmp_path)
    (sample,) = dataset.samples
    assert dataset.path(sample, "rgb").name == "S001C001P001R001A001_rgb.AVI"
    assert dataset.path(sample, "ir").name == "s001c001p001r001a001_IR.avi"
    (tmp_path / "disk" / "copy").mkdir()
    (tmp_path / "disk" / "copy" / "S001C001P001R001A001_rgb.avi").touch()
    assert any(
        "twice, the first is read: 'S001C001P001R001A001_rgb." in remark for remark in NtuRgbd(tmp_path).remarks()
    )


def test_a_linked_folder_is_read(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "S001C001P001R001A001")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "nturgb+d_ir").symlink_to(tmp_path / "elsewhere" / "nturgb+d_ir")
    assert NtuRgbd(tmp_path / "here").modalities == ("ir",)


@pytest.mark.slow
def test_the_check_names_what_is_missing_and_damaged(ntu_tree: Path) -> None:
    (ntu_tree / "nturgb+d_ir" / "S001C001P001R001A001_ir.avi").unlink()
    (ntu_tree / "nturgb+d_rgb" / "S001C001P001R001A002_rgb.avi").write_bytes(b"damaged")
    cut = ntu_tree / "nturgb+d_ir" / "S001C001P001R001A003_ir.avi"
    cut.write_bytes(cut.read_bytes()[:-400])
    for modality in ("rgb", "ir"):
        (ntu_tree / f"nturgb+d_{modality}" / f"S001C003P003R001A010_{modality}.avi").unlink()
    for quick in (True, False):
        report = check(NtuRgbd(ntu_tree), quick=quick)
        assert (report.samples, report.complete, report.faultless, report.quick) == (89, 86, False, quick)
        rgb, ir = report.modalities
        assert (rgb.usable, ir.usable) == (88, 87)
        assert "no file" in ir.unusable["S001C001P001R001A001"]
        assert "S001C001P001R001A001_ir.avi" in ir.unusable["S001C001P001R001A001"]
        assert "S001C001P001R001A002_rgb.avi is damaged" in rgb.unusable["S001C001P001R001A002"]
        assert "S001C001P001R001A003_ir.avi is damaged" in ir.unusable["S001C001P001R001A003"]
        assert report.gaps == {"S001C003P003R001A010": "no file"}
        assert ir.frames == (9, 10, 11)
    assert report.remarks == (
        "89 of 9,480 samples of the complete data set",
        "cross_subject: 60 of 6,720 training and 29 of 2,760 test samples",
        "cross_view: 59 of 6,320 training and 30 of 3,160 test samples",
        "ir is missing in 1 of 89: 'S001C001P001R001A001'",
    )


def test_a_copy_without_one_modality(ntu_tree: Path) -> None:
    shutil.rmtree(ntu_tree / "nturgb+d_ir")
    dataset = NtuRgbd(ntu_tree)
    assert dataset.modalities == ("rgb",)
    with pytest.raises(DataError, match=r"no ir recording\. Expected nturgb\+d_ir/\*_ir\.avi.*kd-edge data check"):
        dataset.image_format("ir")
    with pytest.raises(DataError, match=r"no modality 'irr' \(did you mean 'ir'\?\)"):
        dataset.open(dataset.samples[0], "irr")
    assert "ir is missing in 90 of 90" in dataset.remarks()[-1]


def test_a_list_of_samples_to_leave_out(ntu_tree: Path, tmp_path: Path) -> None:
    names = ["S001C001P001R001A001", "S001C002P003R001A010", "S009C001P001R001A001"]
    text = "302 of the captured samples have missing skeletons.\nPlease ignore these files.\n\n"
    path = tmp_path / "missing.txt"
    path.write_text(text + "\n".join(names) + "\r\n\n")
    dataset = NtuRgbd(ntu_tree, exclude=path)
    assert len(dataset.samples) == 88
    assert dataset.gaps() == dict.fromkeys(names[:2], f"excluded by {path}")
    assert f"excluded: '{names[0]}', '{names[1]}'" in dataset.remarks()
    path.write_text("nothing here\n")
    with pytest.raises(DataError, match=r"missing\.txt names no sample.*S001C002P005R002A008"):
        NtuRgbd(ntu_tree, exclude=path)
    with pytest.raises(DataError, match=r"cannot read .*gone\.txt"):
        NtuRgbd(ntu_tree, exclude=tmp_path / "gone.txt")


def test_every_name_on_a_line_is_left_out(ntu_tree: Path) -> None:
    text = "1: S001C001P001R001A001, s001c001p001r001a002.skeleton;S001C001P001R001A003_rgb.avi\tS001C001P001R001A0041"
    (ntu_tree / "missing.txt").write_text(text + "\nXS001C001P001R001A005 nturgb+d/S001C001P001R001A006\n")
    left_out = NtuRgbd(ntu_tree, exclude=ntu_tree / "missing.txt").gaps()
    assert [name[-4:] for name in left_out] == ["A001", "A002", "A003", "A006"]


def test_the_list_may_lie_with_the_recordings(ntu_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=r"cannot read missing\.txt \(No such file or directory, neither in .*here\)"):
        NtuRgbd(ntu_tree, exclude=Path("missing.txt"))
    Path("missing.txt").write_text("S001C001P001R001A001\n")
    here = NtuRgbd(ntu_tree, exclude=Path("missing.txt"))
    assert here.gaps() == {"S001C001P001R001A001": "excluded by missing.txt"}
    (ntu_tree / "missing.txt").write_text("S001C001P001R001A002\n")  # the one with the recordings comes first
    with_recordings = NtuRgbd(ntu_tree, exclude=Path("missing.txt"))
    assert with_recordings.gaps() == {"S001C001P001R001A002": "excluded by missing.txt"}
    assert NtuRgbdData(exclude="missing.txt").model_dump(mode="json")["exclude"] == "missing.txt"


def test_an_incomplete_copy_says_which_class_cannot_be_trained(ntu_tree: Path) -> None:
    for path in ntu_tree.rglob("*A005_*.avi"):
        if "P003" not in path.name:
            path.unlink()
    dataset = NtuRgbd(ntu_tree)
    with pytest.raises(DataError, match=r"'cross_subject' has no training sample of 'drop'"):
        dataset.split("cross_subject")
    assert len(dataset.split("cross_view").train) == 56
    for path in ntu_tree.rglob("*C001*.avi"):
        path.unlink()
    with pytest.raises(DataError, match="'cross_view' has no test sample"):
        NtuRgbd(ntu_tree).split("cross_view")


def test_wrong_folders_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        NtuRgbd(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"it contains nothing.*nturgb\+d_rgb/SsssCcccPpppRrrrAaaa_rgb\.avi"):
        NtuRgbd(tmp_path)
    touch(tmp_path, "S001C001P001R001A050")
    with pytest.raises(DataError, match=r"A001 to A010 .*it contains 2 files of other classes"):
        NtuRgbd(tmp_path)


def test_the_content_key_follows_file_and_decoding(ntu_tree: Path) -> None:
    dataset = NtuRgbd(ntu_tree)
    first, second = dataset.samples[:2]
    keys = Counter(dataset.content_key(s, m) for s in (first, second) for m in ("rgb", "ir"))
    assert len(keys) == 4
    assert dataset.content_key(first, "ir") != NtuRgbd(ntu_tree, decode_height_px=32).content_key(first, "ir")
    path = dataset.path(first, "ir")
    path.write_bytes(path.read_bytes() + b"\0")
    assert NtuRgbd(ntu_tree).content_key(first, "ir") not in keys
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        NtuRgbd(ntu_tree).content_key(first, "ir")


def test_the_frame_cache_leaves_out_what_is_missing(ntu_tree: Path, tmp_path: Path) -> None:
    (ntu_tree / "nturgb+d_ir" / "S001C001P001R001A001_ir.avi").unlink()
    dataset = NtuRgbd(ntu_tree)
    ready = frames.prepare(dataset, dataset.samples[:6], "ir", resize_px=32, root=tmp_path / "cache")
    assert [s.id for s in ready.samples] == [s.id for s in dataset.samples[1:6]]
    assert "no file" in ready.skipped["S001C001P001R001A001"]
    assert ready.image_format.band == "nir"
    clip = ready.clip("S001C001P001R001A002")
    assert clip.frames.shape == (9, 32, 39)
    assert clip.stamps_ns.tolist() == dataset.open(dataset.samples[1], "ir").stamps_ns.tolist()
