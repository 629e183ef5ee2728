from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from kd_edge.cli import main
from kd_edge.data import BerkeleyMhadData, Wearables, open_dataset
from kd_edge.data.cache import frames
from kd_edge.data.check import check
from kd_edge.data.dataset import Probed, Sample, SignalFormat
from kd_edge.data.readers.berkeley_files import Performance, View, frame_stamps, read_pictures
from kd_edge.data.readers.berkeley_mhad import LABELS, NEVER_RECORDED, OFFICIAL_SIDES, VIEWS, BerkeleyMhad
from kd_edge.data.signals.load import load_signals
from kd_edge.errors import DataError

SENSORS = tuple(f"accelerometer_{n}" for n in range(1, 7))


def by_id(dataset: BerkeleyMhad, sample_id: str) -> Sample:
    return next(s for s in dataset.samples if s.id == sample_id)


def signal_file(root: Path, sensor: int = 1, name: str = "s01_a01_r01") -> Path:
    return root / "Accelerometer" / f"Shimmer{sensor:02d}" / f"acc_h{sensor:02d}_{name}.txt"


def times_file(root: Path, name: str = "s01_a01_r01") -> Path:
    return root / "Camera" / "Correspondences" / f"corr_moc_img_{name}.txt"


def test_folders_tell_camera_subject_class_and_repetition(berkeley_tree: Path) -> None:
    dataset = BerkeleyMhad(berkeley_tree)
    assert len(dataset.samples) == 3 * 11 * 2
    assert by_id(dataset, "s08_a11_r01_c3_2") == Sample("s08_a11_r01_c3_2", "S08", "c3_2", "R01", 10)
    assert len(LABELS) == len(set(LABELS)) == 11
    assert dataset.flip_labels == tuple(range(11))
    assert dataset.modalities == ("rgb", *SENSORS)
    assert dataset.sensors == SENSORS
    assert isinstance(dataset, Wearables)
    assert isinstance(dataset, Probed)
    assert dataset.image_format("rgb").fps == 22
    with pytest.raises(DataError, match="'accelerometer_1' of berkeley_mhad is a signal"):
        dataset.image_format("accelerometer_1")
    with pytest.raises(DataError, match=r"no modality 'accelerometer_7' .did you mean"):
        dataset.path(dataset.samples[0], "accelerometer_7")


def test_twelve_views_of_four_clusters() -> None:
    assert Counter(name[:2] for name in VIEWS) == {"c1": 4, "c2": 4, "c3": 2, "c4": 2}
    assert VIEWS["c2_3"] == View(2, 3)


def test_what_was_never_recorded_explains_the_official_counts() -> None:
    """660 performances by 12 views, less those lost, as the paper counts: 7,900; subjects 1-7 and 8-12."""
    views = Counter(view.cluster for view in VIEWS.values())
    lost = {p: sum(views[cluster] for cluster in clusters) for p, clusters in NEVER_RECORDED.items()}
    assert lost == {Performance(4, 8, 5): 12, Performance(5, 2, 5): 4, Performance(10, 8, 5): 4}
    train = 7 * 55 * 12 - sum(n for p, n in lost.items() if p.subject <= 7)
    test = 5 * 55 * 12 - sum(n for p, n in lost.items() if p.subject > 7)
    assert (train, test) == OFFICIAL_SIDES == (4604, 3296)


def test_the_sensors_raw_pictures_become_colours(berkeley_tree: Path) -> None:
    """The tree's pictures shine on the red pixels only, beside a gray bar that tells class and frame."""
    dataset = BerkeleyMhad(berkeley_tree)
    clip = dataset.open(by_id(dataset, "s02_a03_r01_c1_1"), "rgb")
    assert clip.frames.shape == (6, 24, 32, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.frames[2, 12, 20].tolist() == [200, 0, 0]
    assert clip.frames[2, 12, 7:9].tolist() == [[22, 22, 22]] * 2  # inside the bar at 6 to 9: 10 * 2 + 2
    assert np.allclose(clip.stamps_ns, np.arange(6) * 5e7, rtol=0, atol=1000)  # by Correspondences: 20 Hz
    small = BerkeleyMhad(berkeley_tree, decode_height_px=12).open(dataset.samples[0], "rgb")
    assert small.frames.shape == (6, 12, 16, 3)


@pytest.mark.parametrize(("shift", "colour"), [((0, 1), 0), ((1, 0), 2)], ids=["red", "blue"])
def test_each_colour_filter_has_its_place(tmp_path: Path, shift: tuple[int, int], colour: int) -> None:
    raw = np.zeros((8, 10), np.uint8)
    raw[shift[0] :: 2, shift[1] :: 2] = 160
    (tmp_path / "x_00000.pgm").write_bytes(b"P5\n10 8\n255\n" + raw.tobytes())
    image = read_pictures([tmp_path / "x_00000.pgm"], 480)[0]
    assert image[4, 5].tolist() == [160 * (c == colour) for c in range(3)]


def test_converted_pictures_keep_their_colours(berkeley_tree: Path) -> None:
    """Copies of the data set with JPEG or PNG instead, every third frame: their numbers place them."""
    folder = berkeley_tree / "Camera/Cluster01/Cam01/S01/A01/R01"
    for path in folder.iterdir():
        path.unlink()
    image = np.zeros((24, 32, 3), np.uint8)
    image[..., 0] = 255  # OpenCV writes B, G, R
    for n, ending in ((0, "jpg"), (3, "png"), (5, "JPEG")):
        cv2.imwrite(str(folder / f"img_l01_c01_s01_a01_r01_{n:05d}.{ending}"), image)
    (folder / "Thumbs.db").touch()
    dataset = BerkeleyMhad(berkeley_tree)
    clip = dataset.open(dataset.samples[0], "rgb")
    assert clip.frames.shape == (3, 24, 32, 3)
    assert np.allclose(clip.frames, [0, 0, 255], rtol=0, atol=3)
    assert np.allclose(clip.stamps_ns, [0, 15e7, 25e7], rtol=0, atol=1000)
    cv2.imwrite(str(folder / "img_l01_c01_s01_a01_r01_00000.jpg"), np.full((24, 32), 77, np.uint8))
    assert np.allclose(dataset.open(dataset.samples[0], "rgb").frames[0], 77, rtol=0, atol=2)


def test_signals_lie_on_the_time_of_the_pictures(berkeley_tree: Path) -> None:
    """The first picture is taken at 10 s, the samples at 9.9 s, 9.94 s and so on: three come before it."""
    dataset = BerkeleyMhad(berkeley_tree)
    clip = dataset.open(by_id(dataset, "s08_a05_r01_c3_2"), "accelerometer_4")
    assert clip.frames.dtype == np.float32
    assert np.array_equal(clip.frames, np.tile(np.float32([0.04, 0.05, 9.8]), (9, 1)))
    assert np.allclose(clip.stamps_ns, (0.02 + np.arange(9) / 25) * 1e9, rtol=0, atol=1000)
    other = dataset.open(by_id(dataset, "s08_a05_r01_c1_1"), "accelerometer_4")
    assert np.array_equal(clip.stamps_ns, other.stamps_ns)  # one file serves both views


def test_clocks_that_do_not_overlap_are_not_believed(berkeley_tree: Path) -> None:
    path = signal_file(berkeley_tree)
    path.write_text("".join(f"1 2 3 {5000 + n / 25}\n" for n in range(12)))
    dataset = BerkeleyMhad(berkeley_tree)
    clip = dataset.open(dataset.samples[0], "accelerometer_1")
    assert clip.stamps_ns.tolist() == [40_000_000 * n for n in range(12)]
    path.write_text("1 2 3\n" * 12)
    clip = dataset.open(dataset.samples[0], "accelerometer_1")
    assert np.allclose(clip.stamps_ns, np.arange(12) / 30 * 1e9, rtol=0, atol=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 10\n",
        "".join(f"{n} {10 + n / 20}\n" for n in range(5)),  # a picture is missing
        "".join(f"{n} {10 - n / 20}\n" for n in range(6)),
        "".join(f"{n} {10 + n / 80}\n" for n in range(6)),  # four times the rate
        "".join(f"{n} {n * 22} {n}\n" for n in range(6)),  # numbers of the motion capture's frames, 480 a second
        "0 10\n1 nan\n2 10.1\n3 inf\n4 10.2\n5 10.25\n",
    ],
    ids=["empty", "short", "incomplete", "backwards", "too fast", "frames of the motion capture", "not numbers"],
)
def test_pictures_without_believable_times_come_at_22_hz(berkeley_tree: Path, text: str) -> None:
    times_file(berkeley_tree).write_text(text)
    stamps, start = frame_stamps(times_file(berkeley_tree), range(6), 22.0)
    assert np.allclose(stamps, np.arange(6) / 22 * 1e9, rtol=0, atol=1)
    assert start is None
    dataset = BerkeleyMhad(berkeley_tree)
    assert np.array_equal(dataset.open(dataset.samples[0], "rgb").stamps_ns, stamps)


def test_times_count_by_the_numbers_of_the_pictures(tmp_path: Path) -> None:
    assert frame_stamps(None, [4, 5, 26], 22.0)[0].tolist() == [0, 45_454_545, 1_000_000_000]
    path = tmp_path / "time_stamps_img_s01_a01_r01.txt"
    path.write_text("".join(f"{n},{10 + n / 25}\n" for n in range(9)))
    stamps, start = frame_stamps(path, [2, 3, 8], 22.0)
    assert np.allclose(stamps, [0, 4e7, 24e7], rtol=0, atol=1)
    assert start == pytest.approx(10.08)
    path.write_text("0 10\n1 soon\n")
    with pytest.raises(DataError, match=r"time_stamps_img_s01_a01_r01\.txt, line 2: '1 soon'"):
        frame_stamps(path, [0, 1], 22.0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1.0, SignalFormat("g", (-6.0, 6.0), 30.0)),
        (9.81, SignalFormat("m/s^2", (-58.8399, 58.8399), 30.0)),
        (2048.0, SignalFormat("counts", (0.0, 4095.0), 30.0)),
    ],
)
def test_gravity_tells_the_unit(berkeley_tree: Path, size: float, expected: SignalFormat) -> None:
    signal_file(berkeley_tree, 2).write_text("unreadable")  # the next file counts
    signal_file(berkeley_tree, 3).write_text("0 0 0 1\n0 0 0 2\n")  # a sensor that measures nothing is outvoted
    for path in (berkeley_tree / "Accelerometer").glob("Shimmer0[12456]/*_s01_a0[12]_*"):
        if path.read_text() != "unreadable":
            path.write_text(f"0 {0.6 * size} {0.8 * size} 1\n0 {0.6 * size} {0.8 * size} 2\n0 0 {9 * size} 3\n")
    found = BerkeleyMhad(berkeley_tree).signal_format("accelerometer_2")
    assert (found.unit, found.rate_hz) == (expected.unit, expected.rate_hz)
    assert found.value_range == pytest.approx(expected.value_range)
    with pytest.raises(DataError, match=r"no sensor 'accelerometer' .did you mean 'accelerometer_"):
        BerkeleyMhad(berkeley_tree).signal_format("accelerometer")


def test_the_first_seven_subjects_train(berkeley_tree: Path) -> None:
    split = BerkeleyMhad(berkeley_tree).split("subjects")
    assert Counter(s.subject for s in split.train) == {"S01": 22, "S02": 22}
    assert Counter(s.subject for s in split.test) == {"S08": 22}
    with pytest.raises(DataError, match=r"no split 'subject' .did you mean 'subjects'"):
        BerkeleyMhad(berkeley_tree).split("subject")
    for path in berkeley_tree.glob("Camera/Cluster*/Cam*/S0[12]/A04"):
        shutil.rmtree(path)
    with pytest.raises(DataError, match="no training sample of 'punching'"):
        BerkeleyMhad(berkeley_tree).split("subjects")


def test_chosen_views_only(berkeley_tree: Path) -> None:
    dataset = BerkeleyMhad(berkeley_tree, views=["c3_2", "c4_1"])
    assert {s.view for s in dataset.samples} == {"c3_2"}
    assert dataset.remarks()[0] == "33 of 7,900 clips of the complete data set (views c3_2, c4_1)"
    assert not any(remark.startswith("subjects:") for remark in dataset.remarks())
    with pytest.raises(DataError, match=r"no view 'c3_3' .did you mean"):
        BerkeleyMhad(berkeley_tree, views=["c3_3"])
    with pytest.raises(DataError, match="no recording of c4_1 in"):
        BerkeleyMhad(berkeley_tree, views=["c4_1"])


def test_gaps_and_remarks(berkeley_tree: Path) -> None:
    shutil.rmtree(berkeley_tree / "Camera/Cluster03/Cam02/S02/A09")
    (berkeley_tree / "Camera/Cluster01/Cam01/S01/A12/R01").mkdir(parents=True)
    (berkeley_tree / "Camera/Cluster01/Cam01/S01/A12/R01/x_0.pgm").touch()
    (berkeley_tree / "Camera/Cluster01/Cam01/S01/A01/R02").mkdir()  # empty: no recording
    for name in ("s01_a01_r01", "s02_a09_r01"):
        signal_file(berkeley_tree, 3, name).unlink()
    dataset = BerkeleyMhad(berkeley_tree)
    gaps = dataset.gaps()
    assert len(gaps) == 3 * 11 * 5 * 2 - 65
    assert gaps["s02_a09_r01_c3_2"] == gaps["s01_a01_r02_c1_1"] == "no pictures"
    assert dataset.remarks() == (
        "65 of 7,900 clips of the complete data set",
        "subjects: 43 of 4,604 training and 22 of 3,296 test samples",
        "accelerometer_3 is missing in 2 of 33 performances: 's01_a01_r01_c1_1', 's02_a09_r01_c1_1'",
        "accelerometers: the files lack the unit; by the size of gravity it is m/s^2",
        "not read, not an action of A01 to A11: 'Camera/Cluster01/Cam01/S01/A12/R01'",
    )
    with pytest.raises(DataError, match=r"no file .*acc_h03_s01_a01_r01\.txt"):
        dataset.open(dataset.samples[0], "accelerometer_3")
    shutil.rmtree(berkeley_tree / "Accelerometer")
    shutil.rmtree(berkeley_tree / "Camera" / "Correspondences")
    dataset = BerkeleyMhad(berkeley_tree)
    assert dataset.modalities == ("rgb",)
    assert dataset.remarks()[-2] == "no stamps of the pictures (Camera/Correspondences): 22 Hz is assumed"


def test_never_recorded_is_no_loss(berkeley_tree: Path) -> None:
    folders = berkeley_tree / "Camera/Cluster03/Cam02"
    shutil.copytree(folders / "S02", folders / "S05")
    shutil.copytree(berkeley_tree / "Camera/Cluster01/Cam01/S02", berkeley_tree / "Camera/Cluster01/Cam01/S05")
    gaps = BerkeleyMhad(berkeley_tree).gaps()
    assert (gaps["s05_a02_r05_c3_2"], gaps["s05_a02_r05_c1_1"]) == ("never recorded", "no pictures")


def test_folders_may_be_spelled_otherwise(berkeley_tree: Path) -> None:
    """Without the folder Camera, with capitals otherwise and single digits."""
    (berkeley_tree / "Camera/Cluster01/Cam01").rename(berkeley_tree / "Camera/Cluster01/cam1")
    (berkeley_tree / "Camera/Cluster01").rename(berkeley_tree / "CLUSTER1")
    (berkeley_tree / "Camera").rename(berkeley_tree / "camera")
    (berkeley_tree / "Accelerometer").rename(berkeley_tree / "acc")
    dataset = BerkeleyMhad(berkeley_tree)
    assert len(dataset.samples) == 66
    assert dataset.sensors == SENSORS


def test_a_folder_of_something_else(tmp_path: Path, berkeley_tree: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nothing"):
        BerkeleyMhad(tmp_path / "nothing")
    (tmp_path / "else").mkdir()
    with pytest.raises(DataError, match=r"no Berkeley MHAD pictures in .* \(it contains nothing\)"):
        BerkeleyMhad(tmp_path / "else")
    shutil.rmtree(berkeley_tree / "Camera")
    with pytest.raises(DataError, match=r"it contains accelerometers, but no pictures"):
        BerkeleyMhad(berkeley_tree)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _other_size(path: Path) -> None:
    path.write_bytes(b"P5\n20 24\n255\n" + bytes(480))


def _sixteen_bits(path: Path) -> None:
    path.write_bytes(b"P5\n32 24\n65535\n" + bytes(2 * 768))


def _half_jpeg(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    content = cv2.imencode(".jpg", noise)[1].tobytes()
    path.unlink()
    path.with_suffix(".jpg").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.write_bytes(b""), "it is not a picture"),
        (lambda path: path.write_bytes(b"garbage"), "it is not a picture"),
        (_cut, "it is not a picture"),
        (_sixteen_bits, "it is not a picture of 8 bits"),
        (_other_size, "it is 20 x 24, the first one is not"),
        (_half_jpeg, "it is truncated"),
    ],
    ids=["empty", "garbage", "cut off", "16 bit", "size", "half a JPEG"],
)
def test_damaged_pictures_are_named(berkeley_tree: Path, damage: object, found: str) -> None:
    dataset = BerkeleyMhad(berkeley_tree)
    path = dataset.path(dataset.samples[0], "rgb") / "img_l01_c01_s01_a01_r01_00003.pgm"
    assert callable(damage)
    damage(path)
    with pytest.raises(DataError, match=rf"s01_a01_r01_00003\.(pgm|jpg) is damaged: {found}"):
        dataset.open(dataset.samples[0], "rgb")


def test_a_folder_that_lost_its_pictures(berkeley_tree: Path) -> None:
    dataset = BerkeleyMhad(berkeley_tree)
    folder = dataset.path(dataset.samples[0], "rgb")
    for path in folder.iterdir():
        path.unlink()
    for read in (dataset.open, dataset.probe, dataset.content_key):
        with pytest.raises(DataError, match="no picture in"):
            read(dataset.samples[0], "rgb")
    folder.rmdir()
    with pytest.raises(DataError, match="cannot read"):
        dataset.open(dataset.samples[0], "rgb")


def test_content_keys_follow_what_is_read(berkeley_tree: Path) -> None:
    def keys() -> tuple[str, str]:
        dataset = BerkeleyMhad(berkeley_tree)
        sample = dataset.samples[0]
        return dataset.content_key(sample, "rgb"), dataset.content_key(sample, "accelerometer_1")

    first = keys()
    assert first == keys()
    other = BerkeleyMhad(berkeley_tree, decode_height_px=100)
    assert other.content_key(other.samples[0], "rgb") != first[0]
    signal_file(berkeley_tree).write_text("1 2 3 4\n5 6 7 8\n")
    second = keys()
    assert (second[0] == first[0], second[1] == first[1]) == (True, False)
    picture = next((berkeley_tree / "Camera/Cluster01/Cam01/S01/A01/R01").glob("*_00002.pgm"))
    picture.write_bytes(picture.read_bytes() + b"\n")
    third = keys()
    assert (third[0] == second[0], third[1] == second[1]) == (False, True)
    times_file(berkeley_tree).unlink()  # moves both
    fourth = keys()
    assert fourth[0] != third[0]
    assert fourth[1] != third[1]


@pytest.mark.slow
def test_check_quick_and_whole(berkeley_tree: Path) -> None:
    signal_file(berkeley_tree, 5).write_text("0.1 0.2 nan 1\n")
    dataset = BerkeleyMhad(berkeley_tree)
    for quick in (True, False):
        report = check(dataset, quick=quick)
        assert (report.samples, report.complete) == (66, 64)  # both views of the performance
        rgb, *_, fifth, _sixth = report.modalities
        assert rgb.frames == (6, 6, 6)
        assert rgb.seconds == pytest.approx((0.25, 0.25, 0.25))
        assert "acc_h05_s01_a01_r01.txt, line 1" in fifth.unusable["s01_a01_r01_c3_2"]


def test_its_configuration(berkeley_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(berkeley_tree.parent / "cache"))
    dataset = open_dataset(BerkeleyMhadData(views=("c1_1",), decode_height_px=32), berkeley_tree.parent)
    assert (dataset.name, len(dataset.samples)) == ("berkeley_mhad", 33)
    for wrong in (("c1_5",), ()):
        with pytest.raises(ValidationError, match="views"):
            BerkeleyMhadData.model_validate({"views": wrong})


def test_caches_hold_pictures_and_signals(berkeley_tree: Path, tmp_path: Path) -> None:
    signal_file(berkeley_tree, 2, "s01_a01_r01").unlink()
    dataset = BerkeleyMhad(berkeley_tree)
    ready = frames.prepare(dataset, dataset.samples[:4], "rgb", resize_px=16, root=tmp_path / "cache")
    assert len(ready) == 4
    signals = load_signals(dataset, dataset.samples, ["accelerometer_1", "accelerometer_2"], root=tmp_path / "cache")
    assert len(signals) == 66
    assert set(signals.lacking["accelerometer_2"]) == {"s01_a01_r01_c1_1", "s01_a01_r01_c3_2"}
    points = signals.points("s08_a11_r01_c1_1", 0, 250_000_000, 8)
    assert np.allclose(points[:, :, 4], [[0.01, 0.11, 9.8], [0.02, 0.11, 9.8]])


@pytest.mark.slow
def test_the_command_line_reads_it(
    berkeley_tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(berkeley_tree.parent / "cache"))
    monkeypatch.setattr(
        sys, "argv", ["kd-edge", "data", "check", "berkeley_mhad", "--data", str(berkeley_tree), "--quick"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "66 samples, 66 complete, 11 classes" in capsys.readouterr().out
