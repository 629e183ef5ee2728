"""Skeletons of NTU RGB+D and PKU-MMD in the form of the official files, and which body is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.check import check
from kd_edge.data.readers import kinect_skeletons
from kd_edge.data.readers.kinect_skeletons import main_body, read_ntu, read_pku
from kd_edge.data.readers.ntu_rgbd import NtuRgbd
from kd_edge.data.readers.pku_mmd import PkuMmd
from kd_edge.errors import DataError
from kd_edge.train.inputs.targets import gather_targets
from kd_edge.train.recipe.student_stages import JointTargets

BODY = "72057594037931101 0 1 1 1 1 0 0.02764709 0.05745083 2"
OTHER = "72057594037931102 0 1 1 1 1 0 0.1 0.1 2"
JOINT = "0.2181153 0.1725972 3.785547 277.419 191.8218 1036.233 519.1677 -0.2059419 0.05349901 0.9692109 -0.1239193 2"
"""First joint of the first frame of S001C001P001R001A001.skeleton: right of and above the middle of both pictures."""


def joint(x: float, y: float, z: float, state: int = 2) -> str:
    return f"{x:.7g} {y:.7g} {z:.7g} 256 212 -Infinity NaN 0 0 0 0 {state}"


def body(name: str, x: float, *, first: str | None = None, state: int = 2) -> list[str]:
    """25 joints in a column at x, one below the other, 3 m away."""
    lines = [joint(x, 1 - k / 20, 3, state) for k in range(25)]
    return [name, "25", *([first] if first else lines[:1]), *lines[1:]]


def file_of(path: Path, *frames: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(len(frames))]
    for bodies in frames:
        lines += [str(len(bodies)), *(line for one in bodies for line in one)]
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


def test_the_official_form_of_ntu(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.skeleton", [body(BODY, 0.5, first=JOINT)], [], [body(BODY, 0.6)])
    found = read_ntu(path)
    assert found.shape == (1, 3, 25, 3)
    assert found[0, 0, 0].tolist() == np.float32([0.2181153, 0.1725972, 3.785547]).tolist()
    np.testing.assert_array_equal(found[0, 0, 24], np.float32([0.5, -0.2, 3]))
    assert np.isnan(found[0, 1]).all()  # nobody was seen
    clip = main_body(found, path)
    assert clip.stamps_ns.tolist() == [0, 33333333, 66666667]
    # metres in the camera's frame: the joint's columns lie right of the middles 256 and 960, its rows above 212 and 540
    values = np.array(JOINT.split(), dtype=np.float64)
    assert (np.sign(values[3] - 256), np.sign(values[5] - 960)) == (np.sign(values[0]),) * 2 == (1, 1)
    assert (np.sign(212 - values[4]), np.sign(540 - values[6])) == (np.sign(values[1]),) * 2 == (1, 1)


def test_joints_that_are_not_tracked_are_lacking_and_inferred_ones_are_not(tmp_path: Path) -> None:
    lines = body(BODY, 0.5)
    lines[2 + 3], lines[2 + 4] = joint(9, 9, 9, state=0), joint(8, 8, 8, state=1)
    found = read_ntu(file_of(tmp_path / "a.skeleton", [lines]))[0, 0]
    assert np.isnan(found[3]).all()
    assert found[4].tolist() == [8, 8, 8]
    assert np.isfinite(found).all(axis=1).sum() == 24


def test_of_several_bodies_the_one_that_moves_most(tmp_path: Path) -> None:
    """The other one stands by; a third, seen once, cannot move."""
    frames = [[body(OTHER, -0.5), body(BODY, 0.1 * k)] for k in range(4)]
    frames[2] = [body("7 0 0 0 0 0 0 0 0 2", 5.0), *frames[2]]
    frames[3] = frames[3][1:]  # by then the other one has gone
    path = file_of(tmp_path / "a.skeleton", *frames)
    assert read_ntu(path).shape == (3, 4, 25, 3)
    assert main_body(read_ntu(path), path).frames[:, 7, 0].tolist() == np.float32([0, 0.1, 0.2, 0.3]).tolist()


def test_who_stands_still_is_taken_before_nobody() -> None:
    bodies = np.full((2, 3, 25, 3), np.nan, np.float32)
    bodies[1] = 2
    assert (main_body(bodies, Path("a")).frames == 2).all()
    with pytest.raises(DataError, match="a contains no body"):
        main_body(bodies[:1], Path("a"))
    with pytest.raises(DataError, match="a contains no body"):
        main_body(bodies[:0], Path("a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it ends before its last frame"),
        ("2\n0\n", "it ends before its last frame"),
        ("0\n", "it has 0 frames"),
        ("1000000000\n", "it has 1000000000 frames"),
        ("x\n", "invalid literal"),
        (f"1\n1\n{BODY}\n20\n", "a body has 20 joints"),
        (f"1\n1\n{BODY}\n25\n{JOINT}\n", "it ends before its last frame"),
        ("1\n1\n" + "\n".join(body(BODY, 0.5, first=JOINT.replace("0.2181153", "far"))), "could not convert"),
        ("1\n70\n" + "\n".join(line for n in range(70) for line in body(f"{n} 0 0 0 0 0 0 0 0 0", 1)), "64 bodies"),
    ],
)
def test_damaged_files_of_ntu(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "b.skeleton"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_ntu(path)
    assert "b.skeleton is damaged" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.skeleton"):
        read_ntu(tmp_path / "none.skeleton")
    monkeypatch.setattr(kinect_skeletons, "_MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"is damaged: more than 10 bytes"):
        read_ntu(file_of(tmp_path / "a.skeleton", [body(BODY, 0.5)]))


def test_a_sample_of_ntu_with_its_skeleton(ntu_tree: Path) -> None:
    name = "S001C001P002R001A004"
    file_of(ntu_tree / "nturgb+d_skeletons" / f"{name}.skeleton", *([body(BODY, 0.02 * k)] for k in range(10)))
    file_of(ntu_tree / "nturgb+d_skeletons" / "S001C001P077R001A004.skeleton", [body(BODY, 0)])  # it has no video
    dataset = NtuRgbd(ntu_tree)
    assert dataset.modalities == ("rgb", "ir", "skeleton")
    assert len(dataset.samples) == 90
    sample = next(s for s in dataset.samples if s.id == name)
    clip = dataset.open(sample, "skeleton")
    assert clip.frames.shape == (10, 25, 3)
    assert np.array_equal(clip.stamps_ns, dataset.open(sample, "ir").stamps_ns)
    assert dataset.probe(sample, "skeleton") == (10, pytest.approx(0.3))
    assert dataset.content_key(sample, "skeleton").endswith("-skeleton1")
    with pytest.raises(DataError, match=r"no file .*nturgb\+d_skeletons/S001C001P001R001A001\.skeleton"):
        dataset.open(dataset.samples[0], "skeleton")
    with pytest.raises(DataError, match="'skeleton' of ntu_rgbd is a signal"):
        dataset.image_format("skeleton")
    assert any(r.startswith("skeleton is missing in 89 of 90") for r in dataset.remarks())
    report = check(dataset, ["skeleton"])
    assert report.modalities[0].usable == 1


def test_the_dense_targets_of_ntu_at_a_frame(ntu_tree: Path) -> None:
    """25 joints in a column, 5 cm apart: the middle one is the median, and the mean square of -0.6 .. 0.6 in steps of
    0.05 is 0.05^2 * 2 * (1 + 4 + .. + 144) / 25 = 0.0025 * 2 * 650 / 25 = 0.13."""
    name = "S001C001P002R001A004"
    file_of(ntu_tree / "nturgb+d_skeletons" / f"{name}.skeleton", *([body(BODY, 0.02 * k)] for k in range(10)))
    dataset = NtuRgbd(ntu_tree)
    samples = [s for s in dataset.samples if s.id[8:12] == "P002" and s.view == "C001"]
    stamps = {s.id: dataset.open(s, "ir").stamps_ns for s in samples}
    found = gather_targets([JointTargets(velocity_ms=None)], dataset, stamps, samples)
    assert found.size == 75
    assert len(found.lacking["skeleton"]) == len(samples) - 1
    expected = np.zeros((25, 3))
    expected[:, 1] = (0.6 - np.arange(25) / 20) / np.sqrt(0.13)
    np.testing.assert_allclose(found.of(name, np.array([4])).reshape(25, 3), expected, atol=2e-6)


def pku_file(path: Path, frames: int) -> Path:
    """Body 0 walks to the right, 1 cm a frame; body 1 comes in frame 60 and stands still."""
    values = np.zeros((frames, 2, 25, 3))
    values[:, 0] = [0.3, 0.2, 2.5]
    values[:, 0, :, 1] -= np.arange(25) / 20
    values[:, 0, :, 0] += np.arange(frames)[:, None] / 100
    values[60:, 1] = [1, 1, 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(f"{v:.6f}" for v in frame.ravel()) for frame in values) + "\n")
    return path


def test_the_official_form_of_pku(tmp_path: Path) -> None:
    found = read_pku(pku_file(tmp_path / "0001-M.txt", 70))
    assert found.shape == (2, 70, 25, 3)
    np.testing.assert_allclose(found[0, 7, 2], [0.37, 0.1, 2.5], atol=1e-6)
    assert np.isnan(found[1, :60]).all()
    assert (found[1, 60:] == [1, 1, 3]).all()
    (tmp_path / "commas.txt").write_text((tmp_path / "0001-M.txt").read_text().replace(" ", ", "))
    assert np.array_equal(read_pku(tmp_path / "commas.txt"), found, equal_nan=True)


def test_a_sample_of_pku_with_its_interval_of_the_skeleton(pku_tree: Path) -> None:
    (pku_tree / "Label" / "0001-M.txt").write_text("5,11,25,2\n7,100,125,1\n9,130,140,1\n")
    pku_file(pku_tree / "Data" / "PKU_Skeleton_Renew" / "0001-M.txt", 120)
    dataset = PkuMmd(pku_tree)
    assert dataset.modalities == ("rgb", "ir", "skeleton")
    first, over, beyond = (s for s in dataset.samples if s.id.startswith("0001-M"))
    clip = dataset.open(first, "skeleton")
    assert clip.frames.shape == (15, 25, 3)
    np.testing.assert_allclose(clip.frames[[0, 14], 0, 0], [0.41, 0.55], atol=1e-6)
    assert np.abs(clip.stamps_ns - dataset.open(first, "ir").stamps_ns).max() <= 1
    assert dataset.probe(first, "skeleton") == (15, pytest.approx(14 / 30))
    np.testing.assert_allclose(
        dataset.open(over, "skeleton").frames[:, 0, 0], 0.3 + np.arange(100, 120) / 100, atol=1e-6
    )
    with pytest.raises(
        DataError, match=r"0001-M\.txt is damaged: it ends before frame 130, where 0001-M_03_A09 begins"
    ):
        dataset.open(beyond, "skeleton")
    assert len({dataset.content_key(s, m) for s in (first, over) for m in dataset.modalities}) == 6
    with pytest.raises(DataError, match="'skeleton' of pku_mmd is a signal"):
        dataset.image_format("skeleton")
    assert any(r.startswith("skeleton is missing in 11 of 12 videos") for r in dataset.remarks())


def test_the_dense_targets_of_pku_at_a_frame(pku_tree: Path) -> None:
    """As of NTU: a column of joints that walks; 1 cm a frame, so 3 cm in 100 ms."""
    pku_file(pku_tree / "Data" / "Skeleton" / "0001-M.txt", 120)
    (pku_tree / "Label" / "0001-M.txt").write_text("5,11,25,2\n")
    dataset = PkuMmd(pku_tree)
    samples = [s for s in dataset.samples if s.id.startswith("0001-M")]
    stamps = {s.id: dataset.open(s, "ir").stamps_ns for s in samples}
    found = gather_targets([JointTargets(velocity_ms=100.0)], dataset, stamps, samples)
    values = found.of(samples[0].id, np.array([0, 6])).reshape(2, 2, 25, 3)
    expected = (0.6 - np.arange(25) / 20) / np.sqrt(0.13)
    np.testing.assert_allclose(values[:, 0, :, 1], np.tile(expected, (2, 1)), atol=1e-5)
    np.testing.assert_allclose(values[:, :, :, 2], 0, atol=1e-5)
    np.testing.assert_allclose(values[:, 1], 0, atol=1e-5)  # about its own median nothing moves


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has 0 frames"),
        ("1 2 3\n", "line 1 has 3 numbers, not 150"),
        (" ".join(["1"] * 150) + "\n" + " ".join(["1"] * 75), "line 2 has 75 numbers, not 150"),
        (" ".join(["x"] * 150), "could not convert string to float"),
    ],
)
def test_damaged_files_of_pku(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "0001-L.txt").write_text(text)
    with pytest.raises(DataError, match=rf"0001-L\.txt is damaged: {message}"):
        read_pku(tmp_path / "0001-L.txt")
