from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.cli import main
from kd_edge.data.check import SplitReport, check
from kd_edge.data.readers.ntu_rgbd import NtuRgbd
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import DataError


def test_a_report_counts_and_names(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    dataset.path(dataset.samples[0], "depth").write_bytes(b"damaged")
    dataset.path(dataset.samples[1], "inertial").unlink()
    calls: list[tuple[int, int]] = []
    report = check(dataset, None, lambda *at: calls.append(at))
    assert calls[-1] == (8, 8)
    assert (report.samples, report.complete, report.faultless) == (8, 6, False)
    depth, pose, _centred, _skeleton, inertial, *worn = report.modalities
    assert (depth.usable, pose.usable, inertial.usable) == (7, 8, 7)
    assert [(m.modality, m.usable) for m in worn] == [("accelerometer", 7), ("gyroscope", 7)]
    assert re.search(r"a1_s1_t1_depth\.mat is damaged", depth.unusable["a1_s1_t1"])
    assert re.search(r"no file .*a1_s1_t3_inertial\.mat", inertial.unusable["a1_s1_t3"])
    assert depth.frames == (4, 4, 4)
    assert depth.seconds == pytest.approx((0.1, 0.1, 0.1))
    assert report.per_class["swipe left"] == 4
    assert report.per_class["squat"] == 0
    assert report.per_subject == {"1": 4, "2": 4}
    assert len(report.gaps) == 864 - 8
    assert report.gaps["a8_s1_t4"] == "never recorded"
    assert report.gaps["a1_s1_t2"] == "no file"


def test_chosen_modalities_only(small_utd: Path) -> None:
    report = check(UtdMhad(small_utd), ["skeleton"])
    assert [m.modality for m in report.modalities] == ["skeleton"]
    assert report.faultless
    with pytest.raises(DataError, match="no modality 'thermal'"):
        check(UtdMhad(small_utd), ["thermal"])


@pytest.mark.slow
def test_modalities_of_uneven_length_are_remarked(ntu_tree: Path, write_video: Callable[..., Path]) -> None:
    image = np.zeros((53, 64), np.uint8)
    for name, frames in (("S001C001P001R001A001", 60), ("S001C001P001R001A002", 14)):  # of 9: +1.7 s, +0.17 s
        write_video(ntu_tree / "nturgb+d_ir" / f"{name}_ir.avi", [image] * frames)
    for quick in (True, False):
        remarks = check(NtuRgbd(ntu_tree), quick=quick).remarks
        assert remarks[-1] == "rgb and ir differ in length by more than a tenth: 'S001C001P001R001A001'"


def test_a_quick_check_decodes_where_no_header_tells(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    dataset.path(dataset.samples[0], "depth").write_bytes(b"damaged")
    report = check(dataset, quick=True)
    assert (report.complete, report.quick, report.remarks) == (7, False, ())


@pytest.mark.slow
def test_the_command_reports_and_fails_on_damage(
    ntu_tree: Path, pku_tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["kd-edge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    monkeypatch.setenv("KD_EDGE_CACHE", str(ntu_tree.parent / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    (ntu_tree / "nturgb+d_ir" / "S001C001P001R001A001_ir.avi").unlink()
    code, text = run("data", "check", "ntu_rgbd", "--quick", "--data", str(ntu_tree))
    assert code == 1
    assert re.search(r"ntu_rgbd: 90 samples, 89 complete, 10 classes \(9 to 9 samples each\), 3 subjects", text)
    assert "90 of 9,480 samples of the complete data set" in text
    assert "headers only" in text
    assert re.search(r"1 samples cannot be used:\s+S001C001P001R001A001: no file", text)
    code, text = run("data", "check", "ntu_rgb_to_ir", "--data", str(ntu_tree), "--set", "data.actions=all", "--json")
    assert code == 1
    assert len(json.loads(text)["per_class"]) == 60
    monkeypatch.setattr(sys, "argv", ["kd-edge", "data", "check", "ntu_rgbd", "--set", "data.actions=all"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "which is not a recipe" in capsys.readouterr().err
    code, text = run("data", "check", "pku_mmd", "--data", str(pku_tree), "--modality", "ir", "--json")
    assert code == 0
    report = json.loads(text)
    assert (report["complete"], report["quick"], len(report["remarks"])) == (216, False, 3)


def test_whether_a_split_could_be_trained(ntu_tree: Path) -> None:
    report = check(NtuRgbd(ntu_tree), ["rgb", "ir", "ir"], quick=True, split="cross_subject")
    assert [m.modality for m in report.modalities] == ["rgb", "ir"]
    assert report.split == SplitReport("cross_subject", 60, 0, 30)
    assert report.trainable
    report = check(NtuRgbd(ntu_tree), quick=True, split="cross_subject", validation_subjects=["P002"])
    assert report.split == SplitReport("cross_subject", 30, 30, 30)
    (ntu_tree / "nturgb+d_ir" / "S001C002P003R001A007_ir.avi").write_bytes(b"damaged")
    report = check(NtuRgbd(ntu_tree), quick=True, split="cross_view", validation_subjects=["P002"])
    assert report.split == SplitReport("cross_view", 39, 20, 30)
    for path in (ntu_tree / "nturgb+d_ir").glob("*P00[12]*A005_ir.avi"):  # the files are there, but not to be used
        path.write_bytes(b"damaged")
    report = check(NtuRgbd(ntu_tree), quick=True, split="cross_subject")
    assert report.split is not None
    assert "no training sample of 'drop'" in str(report.split.fault)
    assert not report.trainable
    assert check(NtuRgbd(ntu_tree), ["rgb"], quick=True, split="cross_subject").trainable


@pytest.mark.slow
def test_a_split_can_be_trained_with_signals_too() -> None:
    dataset = Synthetic(clips_per_class=4, subjects=4, height_px=32, width_px=32, fps=5)
    report = check(dataset, ["nir", "accelerometer"], split="subjects")
    assert report.split == SplitReport("subjects", 30, 0, 10)
    assert report.faultless
    assert report.modalities[1].seconds == pytest.approx(report.modalities[0].seconds, abs=0.011)


@pytest.mark.parametrize(
    ("split", "held_out", "reason"),
    [
        ("cross_subjects", (), r"no split 'cross_subjects' \(did you mean 'cross_subject'\?\)"),
        ("cross_subject", ("P003",), "validation subject 'P003' is not on the training side"),
        ("cross_subject", ("P001", "P002"), "leaves no training sample"),
    ],
)
def test_why_a_split_could_not_be_trained(ntu_tree: Path, split: str, held_out: tuple[str, ...], reason: str) -> None:
    report = check(NtuRgbd(ntu_tree), quick=True, split=split, validation_subjects=held_out)
    assert report.faultless
    assert not report.trainable
    assert report.split is not None
    assert re.search(reason, str(report.split.fault))


@pytest.mark.slow
def test_the_command_checks_what_a_recipe_needs(
    ntu_tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["kd-edge", "data", "check", *arguments, "--quick", "--data", str(ntu_tree)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, " ".join(capsys.readouterr().out.split())

    monkeypatch.setenv("KD_EDGE_CACHE", str(ntu_tree.parent / "cache"))
    recipe = ("ntu_rgb_to_ir", "--set", "validation_subjects=[]")
    code, text = run(*recipe)
    assert (code, "training can start, with 60 training, 0 validation and 30 test samples" in text) == (0, True)
    code, text = run(*recipe, "--set", "split=odd")
    assert (code, "split odd: training cannot start: ntu_rgbd has no split 'odd'" in text) == (1, True)
    for path in ntu_tree.rglob("*P003*"):
        path.unlink()
    code, text = run(*recipe)
    assert (code, "training cannot start: split 'cross_subject' has no test sample" in text) == (1, True)
    code, text = run("ntu_rgbd")
    assert (code, "training c" in text) == (0, False)  # of a kind only the recordings are told
    shutil.rmtree(ntu_tree / "nturgb+d_ir")
    assert run("ntu_rgbd")[0] == 0
    code, text = run(*recipe)
    assert code == 1
    assert re.search(r"\bir 0 60 0 / 0 / 0", text)
    assert "60 samples cannot be used: S001C001P001R001A001: this copy of ntu_rgbd has no ir recording" in text
    assert "training cannot start: this copy of ntu_rgbd has no ir recording" in text
