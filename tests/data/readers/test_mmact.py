from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from kd_edge.cli import main
from kd_edge.data import DataConfig, MMActData, Wearables, open_dataset
from kd_edge.data.cache import frames
from kd_edge.data.check import check
from kd_edge.data.dataset import Probed, Sample
from kd_edge.data.readers.mmact import LABELS, OFFICIAL_SIDES, MMAct
from kd_edge.data.signals.load import load_signals
from kd_edge.errors import DataError

SENSORS = ("acc_phone", "acc_watch", "gyroscope", "orientation")


def touch(root: Path, *names: str) -> Path:
    """Empty files: enough to list samples, not to decode them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def by_id(dataset: MMAct, sample_id: str) -> Sample:
    return next(s for s in dataset.samples if s.id == sample_id)


def sensor_file(root: Path, folder: str = "acc_phone_clip", name: str = "subject1/scene1/session1/carrying") -> Path:
    return root / folder / f"{name}.csv"


def test_folders_tell_subject_camera_scene_session_and_class(mmact_tree: Path) -> None:
    dataset = MMAct(mmact_tree)
    assert len(dataset.samples) == 3 * 2 * 2 * 6
    assert dataset.labels == ("carrying", "using_phone", "using_pc", "using_phone_desk", "carrying_light")
    sample = by_id(dataset, "s17_cam4_scene1_session5_carrying_light")  # the file is Carrying_light.mp4
    assert sample == Sample("s17_cam4_scene1_session5_carrying_light", "subject17", "cam4", "scene1_session5", 4)
    assert dataset.modalities == ("rgb", *SENSORS)
    assert dataset.sensors == SENSORS
    assert dataset.flip_labels == (0, 1, 2, 3, 4)
    assert isinstance(dataset, Wearables)
    assert isinstance(dataset, Probed)
    assert (dataset.signal_format("acc_watch").unit, dataset.signal_format("acc_watch").rate_hz) == ("m/s^2", 100)
    assert (dataset.signal_format("gyroscope").unit, dataset.signal_format("gyroscope").rate_hz) == ("rad/s", 50)
    assert dataset.signal_format("gyroscope").value_range[1] == pytest.approx(np.radians(2000), abs=1e-3)
    with pytest.raises(DataError, match=r"no sensor 'gyroscop' .did you mean 'gyroscope'"):
        dataset.signal_format("gyroscop")
    with pytest.raises(DataError, match="'orientation' of mmact is a signal"):
        dataset.image_format("orientation")
    with pytest.raises(DataError, match=r"no modality 'acc_fone' .did you mean 'acc_phone'"):
        dataset.open(sample, "acc_fone")


def test_thirty_seven_official_classes() -> None:
    assert len(LABELS) == len(set(LABELS)) == 37
    assert [LABELS.index(name) for name in ("carrying", "using_phone", "talking_on_phone_desk")] == [0, 23, 32]
    assert {name for name in LABELS if name.endswith("_desk")} == {"using_phone_desk", "talking_on_phone_desk"}
    assert {sum(sides) for sides in OFFICIAL_SIDES.values()} == {35_162}


def test_scene_three_is_at_a_desk(tmp_path: Path) -> None:
    names = ("using_phone", "talking_on_phone", "drinking")
    touch(tmp_path, *(f"subject1/cam1/scene{scene}/session1/{name}.mp4" for scene in (1, 3) for name in names))
    touch(tmp_path, "subject1/cam1/scene3/session2/using_phone_desk.mp4")  # some releases spell it out
    dataset = MMAct(tmp_path)
    desk = ["talking_on_phone_desk", "using_phone_desk"]
    assert dataset.labels == ("talking_on_phone", "using_phone", "drinking", *desk)
    found = {s.id: dataset.labels[s.label] for s in dataset.samples}
    assert found["s01_cam1_scene1_session1_using_phone"] == "using_phone"
    assert found["s01_cam1_scene3_session1_using_phone_desk"] == "using_phone_desk"
    assert found["s01_cam1_scene3_session2_using_phone_desk"] == "using_phone_desk"
    merged = MMAct(tmp_path, desk=False)
    assert merged.labels == ("talking_on_phone", "using_phone", "drinking")
    assert merged.labels[by_id(merged, "s01_cam1_scene3_session1_using_phone").label] == "using_phone"


def test_both_layouts_in_any_case(tmp_path: Path) -> None:
    """The trimmed release, the challenge's, and folders around and between them."""
    touch(
        tmp_path,
        "trimmed/subject03/cam2/scene4/session1/Waving_hand.mp4",
        "challenge/cross_view/trainval/cam3/Subject3/scene4/session1/waving_hand.MP4",
        "Sensor/ACC_watch_clip/subject3/scene4/session1/waving_hand .csv",
        "video/cam3/subject3/scene4/session1/pocket out.avi",
        "orientation_clip/notes/waving_hand.csv",
        "subject3/scene4/session1/walking.mp4",  # no camera
        "pose/cam1/subject3/scene4/session1/walking.json",
    )
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    dataset = MMAct(tmp_path)
    assert [s.id for s in dataset.samples] == [
        "s03_cam2_scene4_session1_waving_hand",
        "s03_cam3_scene4_session1_pocket_out",
        "s03_cam3_scene4_session1_waving_hand",
    ]
    assert dataset.sensors == ("acc_watch",)
    assert {dataset.path(s, "acc_watch").name for s in dataset.samples if "waving" in s.id} == {"waving_hand .csv"}


def test_video_and_signals(mmact_tree: Path) -> None:
    dataset = MMAct(mmact_tree)
    sample = by_id(dataset, "s02_cam4_scene3_session1_using_phone_desk")
    clip = dataset.open(sample, "rgb")
    assert clip.frames.shape == (10, 36, 64, 3)
    assert np.allclose(clip.frames, 80, rtol=0, atol=4)  # gray value of using_phone
    assert np.allclose(clip.stamps_ns, np.arange(10) / 30 * 1e9, rtol=0, atol=1e5)
    assert MMAct(mmact_tree, decode_height_px=32).open(sample, "rgb").frames.shape == (10, 32, 57, 3)
    phone = dataset.open(sample, "acc_phone")
    assert phone.frames.dtype == np.float32
    assert np.array_equal(phone.frames, np.stack([np.arange(33), np.full(33, 2), np.full(33, -9.5)], axis=1))
    assert np.allclose(phone.stamps_ns, np.arange(33) * 1e7, rtol=0, atol=1000)
    assert np.allclose(dataset.open(sample, "gyroscope").stamps_ns, np.arange(16) * 2e7, rtol=0, atol=1000)


def test_one_file_serves_every_camera(mmact_tree: Path) -> None:
    dataset = MMAct(mmact_tree)
    one, other = (by_id(dataset, f"s01_cam{n}_scene1_session1_carrying") for n in (1, 4))
    assert dataset.path(one, "acc_watch") == dataset.path(other, "acc_watch")
    assert dataset.content_key(one, "acc_watch") == dataset.content_key(other, "acc_watch")
    assert dataset.path(one, "rgb") != dataset.path(other, "rgb")


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("cross_subject", lambda s: s.subject == "subject17"),
        ("cross_view", lambda s: s.view == "cam4"),
        ("cross_scene", lambda s: s.trial.startswith("scene2_")),
        ("cross_session", lambda s: s.trial.endswith("_session5")),
    ],
)
def test_four_protocols(mmact_tree: Path, name: str, test: object) -> None:
    assert callable(test)
    dataset = MMAct(mmact_tree)
    split = dataset.split(name)
    assert all(map(test, split.test))
    assert not any(map(test, split.train))
    assert len(split.train) + len(split.test) == 72
    assert dataset.splits() == ("cross_subject", "cross_view", "cross_scene", "cross_session")
    with pytest.raises(DataError, match="no split 'cross-view'"):
        dataset.split("cross-view")


def test_sides_of_the_protocols(tmp_path: Path) -> None:
    """Numbers as the published lists have them, typed anew."""
    touch(
        tmp_path,
        *(f"subject{n}/cam1/scene1/session1/walking.mp4" for n in range(1, 21)),
        *(f"subject1/cam{n}/scene1/session1/walking.mp4" for n in range(2, 5)),
        *(f"subject1/cam1/scene{n}/session1/walking.mp4" for n in range(2, 5)),
        *(f"subject1/cam1/scene1/session{n}/walking.mp4" for n in range(2, 6)),
    )
    dataset = MMAct(tmp_path)
    assert {s.subject for s in dataset.split("cross_subject").test} == {f"subject{n}" for n in (17, 18, 19, 20)}
    assert {s.view for s in dataset.split("cross_view").test} == {"cam4"}
    assert {s.trial[:6] for s in dataset.split("cross_scene").train} == {"scene1", "scene3", "scene4"}
    assert {s.trial[-1] for s in dataset.split("cross_session").train} == {"1", "2", "3", "4"}


def test_a_class_may_lack_test_samples_but_no_training_samples(mmact_tree: Path) -> None:
    dataset = MMAct(mmact_tree)
    assert Counter(s.label for s in dataset.split("cross_scene").test) == {0: 12}
    untested = "cross_scene: no test sample of 'using_phone', 'using_pc', 'using_phone_desk', 'carrying_light'"
    assert untested in dataset.remarks()
    for path in mmact_tree.glob("trimmed/subject*/cam1/scene*/session*/using_pc.mp4"):
        path.unlink()
    with pytest.raises(DataError, match="'cross_view' has no training sample of 'using_pc'"):
        MMAct(mmact_tree).split("cross_view")
    for path in mmact_tree.glob("trimmed/subject*/cam4/scene*/session*/using_pc.mp4"):
        path.unlink()  # a class that this copy has no sample of is none of its labels
    assert "using_pc" not in MMAct(mmact_tree).labels
    assert len(MMAct(mmact_tree).split("cross_view").train) == 30


def test_gaps_and_remarks(mmact_tree: Path) -> None:
    trimmed = mmact_tree / "trimmed"
    (trimmed / "subject1/cam4/scene1/session1/carrying.mp4").unlink()
    (trimmed / "subject2/cam1/scene2/session5/carrying.mp4").rename(
        trimmed / "subject2/cam1/scene2/session5/dancing.mp4"
    )
    shutil.rmtree(trimmed / "subject2/cam4/scene2/session5")
    again = mmact_tree / "zz/cam1/subject1/scene1/session1/carrying.mp4"
    touch(mmact_tree, again.relative_to(mmact_tree).as_posix())
    sensor_file(mmact_tree, "gyro_clip").unlink()
    dataset = MMAct(mmact_tree)
    assert dataset.gaps() == {"s01_cam4_scene1_session1_carrying": "no video"}
    assert dataset.remarks() == (
        "69 of 35,162 samples of the complete data set",
        "cross_subject: 45 of 27,754 training and 24 of 7,408 test samples",
        "cross_view: 35 of 26,458 training and 34 of 8,704 test samples",
        "cross_scene: 59 of 25,078 training and 10 of 10,084 test samples",
        "cross_scene: no test sample of 'using_phone', 'using_pc', 'using_phone_desk', 'carrying_light'",
        "cross_session: 35 of 28,232 training and 34 of 6,930 test samples",
        "cross_view: the signals of 34 of 34 test samples are training signals too, because all cameras share "
        "one file: figures of sensors are not test figures",
        "gyroscope is missing in 1 of 35 performances: 's01_cam1_scene1_session1_carrying'",
        "not used, sensors without a video: 1 performances",
        "found twice, the first is read: 'zz/cam1/subject1/scene1/session1/carrying.mp4'",
        "not read, no action of that name: 'trimmed/subject2/cam1/scene2/session5/dancing.mp4'",
    )
    with pytest.raises(DataError, match=r"no file .*gyro_clip.subject1.scene1.session1.carrying\.csv"):
        dataset.open(dataset.samples[0], "gyroscope")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", r"carrying\.csv has 0 samples"),
        (
            "20181016_13:37:28.6,1,2,3\n20181016_13:37:28.61,1,nan,3\n",
            r"carrying\.csv, line 2: '2018.*,1,nan",
        ),
        ("20181016_13:37:28.6,1,2,3\n20181016_13:37:28.61,1,2\n", "line 2"),
        ("1,2,3\n4,5,6\n", "line 1: '1,2,3'"),  # no time stamps
    ],
)
def test_damaged_signals_name_file_and_line(mmact_tree: Path, text: str, found: str) -> None:
    sensor_file(mmact_tree).write_text(text)
    dataset = MMAct(mmact_tree)
    sample = by_id(dataset, "s01_cam1_scene1_session1_carrying")
    for read in (dataset.open, dataset.probe):
        with pytest.raises(DataError, match=found):
            read(sample, "acc_phone")


def test_a_folder_of_something_else(tmp_path: Path, mmact_tree: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nothing"):
        MMAct(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no MMAct video in .* \(it contains holiday.mp4\)"):
        MMAct(touch(tmp_path / "else", "holiday.mp4"))
    shutil.rmtree(mmact_tree / "trimmed")
    with pytest.raises(DataError, match=r"it contains sensor files, but no video"):
        MMAct(mmact_tree)
    touch(mmact_tree, "subject1/cam1/scene1/session1/carrying.mp4")
    for folder in mmact_tree.glob("*_clip"):
        shutil.rmtree(folder)
    dataset = MMAct(mmact_tree)
    assert (dataset.modalities, dataset.sensors) == (("rgb",), ())
    with pytest.raises(DataError, match="none: this copy has no sensor file"):
        dataset.signal_format("acc_phone")


def test_content_keys_follow_the_bytes(mmact_tree: Path) -> None:
    def keys(height: int = 480) -> tuple[str, str]:
        dataset = MMAct(mmact_tree, decode_height_px=height)
        sample = by_id(dataset, "s01_cam1_scene1_session1_carrying")
        return dataset.content_key(sample, "rgb"), dataset.content_key(sample, "acc_phone")

    first = keys()
    assert (keys(32)[0] != first[0], keys(32)[1] == first[1]) == (True, True)
    sensor_file(mmact_tree).write_text("changed")
    assert (keys()[0] == first[0], keys()[1] == first[1]) == (True, False)


@pytest.mark.slow
def test_check_quick_and_whole(mmact_tree: Path) -> None:
    sensor_file(mmact_tree, "orientation_clip").write_text("damaged\n")
    video = mmact_tree / "trimmed/subject2/cam1/scene1/session1/carrying.mp4"
    video.write_bytes(video.read_bytes()[:300])
    for quick in (True, False):
        report = check(MMAct(mmact_tree), quick=quick, split="cross_session")
        assert (report.samples, report.complete) == (72, 69)
        rgb, phone, *_, orientation = report.modalities
        assert "carrying.mp4 is damaged" in rgb.unusable["s02_cam1_scene1_session1_carrying"]
        assert sorted(orientation.unusable) == [f"s01_cam{n}_scene1_session1_carrying" for n in (1, 4)]
        assert (rgb.frames, phone.frames) == ((10, 10, 10), (33, 33, 33))
        assert phone.seconds == pytest.approx((0.32, 0.32, 0.32), abs=1e-5)
        assert report.per_class["using_phone_desk"] == 12
        assert report.split is not None
        assert (report.split.train, report.split.test) == (35, 36)  # a sensor of several may be lacking


def test_its_configuration(mmact_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(mmact_tree.parent / "cache"))
    adapter: TypeAdapter[object] = TypeAdapter(DataConfig)
    assert adapter.validate_python({"kind": "mmact", "desk": False}) == MMActData(desk=False)
    with pytest.raises(ValidationError, match="desks"):
        adapter.validate_python({"kind": "mmact", "desks": False})
    dataset = open_dataset(MMActData(desk=False, decode_height_px=32), mmact_tree.parent)
    assert (dataset.name, len(dataset.samples), len(dataset.labels)) == ("mmact", 72, 4)
    assert dataset.open(dataset.samples[0], "rgb").frames.shape[1:] == (32, 57, 3)


def test_caches_hold_pictures_and_signals(mmact_tree: Path, tmp_path: Path) -> None:
    sensor_file(mmact_tree, "gyro_clip").unlink()
    dataset = MMAct(mmact_tree)
    ready = frames.prepare(dataset, dataset.samples[:6], "rgb", resize_px=32, root=tmp_path / "cache")
    assert len(ready) == 6
    signals = load_signals(dataset, dataset.samples, ["acc_phone", "gyroscope"], root=tmp_path / "cache")
    assert len(signals) == 72
    assert set(signals.lacking["gyroscope"]) == {f"s01_cam{n}_scene1_session1_carrying" for n in (1, 4)}
    points = signals.points("s17_cam1_scene1_session1_carrying", 0, 300_000_000, 16)
    assert np.allclose(points[:, 1:, :], [[[17], [-9.5]]])


@pytest.mark.slow
def test_the_command_line_reads_it(
    mmact_tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(mmact_tree.parent / "cache"))
    picture = mmact_tree.parent / "classes.png"
    for arguments in (
        ["data", "check", "mmact", "--quick", "--json", "--data", str(mmact_tree)],
        ["data", "examples", "mmact", "--frames", "2", "--out", str(picture), "--data", str(mmact_tree)],
    ):
        monkeypatch.setattr(sys, "argv", ["kd-edge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        text = capsys.readouterr().out
        if "check" in arguments:
            assert json.loads(text)["per_class"]["carrying"] == 24
    assert "5 rows in" in text
    assert picture.stat().st_size > 1000


def test_cameras_without_sensors_share_nothing(tmp_path: Path) -> None:
    touch(tmp_path, *(f"subject1/cam{camera}/scene1/session1/carrying.mp4" for camera in (1, 4)))
    assert not any("training signals too" in remark for remark in MMAct(tmp_path).remarks())
    touch(tmp_path, "acc_phone_clip/subject1/scene1/session1/carrying.csv")
    touch(tmp_path, "subject2/cam4/scene1/session1/carrying.mp4")
    touch(tmp_path, "acc_phone_clip/subject2/scene1/session1/carrying.csv")
    shared = next(remark for remark in MMAct(tmp_path).remarks() if "training signals too" in remark)
    assert shared.startswith("cross_view: the signals of 1 of 2 test samples"), "nobody filmed subject 2 for training"
