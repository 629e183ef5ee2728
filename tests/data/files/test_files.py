from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from kd_edge.data.check import check
from kd_edge.data.dataset import Split
from kd_edge.data.readers.files import Files
from kd_edge.errors import ConfigError, DataError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.lossless import LosslessWriter
from kd_edge.runtime.clip_recorder import KEYS, NOTES
from tests.data.files.conftest import Folder


def ids(split: Split) -> tuple[list[str], list[str], list[str]]:
    train, validation, test = ([s.id for s in side] for side in (split.train, split.validation, split.test))
    return train, validation, test


def first_values(dataset: Files, sample: int = 0, modality: str = "ir") -> list[int]:
    frames = dataset.open(dataset.samples[sample], modality).frames
    return [int(frame.flat[0]) for frame in frames]


def test_folders_are_classes_and_names_end_in_the_modality(folder: Folder) -> None:
    for name in ("wave/a_01_ir.npy", "wave/a_01_rgb.npy", "kick/b_fast.npy", "wave/._a_01_ir.npy", "kick/notes.txt"):
        folder.clip(name) if name.endswith(".npy") else folder.text(name, "hello")
    dataset = folder.open()
    assert dataset.labels == ("kick", "wave")
    assert dataset.modalities == ("ir", "rgb")
    assert [(s.id, s.label) for s in dataset.samples] == [("kick/b_fast", 0), ("wave/a_01", 1)]
    ir, rgb = dataset.image_format("ir"), dataset.image_format("rgb")
    assert (ir.band, ir.channels, ir.dtype, ir.value_range, ir.fps) == ("nir", 1, "uint8", (0.0, 255.0), 30.0)
    assert (rgb.band, rgb.channels) == ("rgb", 3)
    assert dataset.open(dataset.samples[1], "rgb").frames.shape == (6, 40, 48, 3)
    with pytest.raises(DataError, match="kick/b_fast has no ir"):
        dataset.open(dataset.samples[0], "ir")
    remarks = "\n".join(dataset.remarks())
    assert "unrecognised names: 1, for example kick/notes.txt" in remarks
    assert "ir exists for 1 of 2 recordings" in remarks


def test_a_pattern_tells_the_rest(folder: Folder) -> None:
    folder.text("dataset.toml", "pattern = 'subject{subject}_trial{trial}_{modality}'\n[modality.cam7]\nband = 'lwir'")
    folder.clip("wave/subject2_trial10_cam7.npy")
    folder.clip("kick/subject1_trial1_cam7.npy")
    folder.clip("kick/other.npy")
    dataset = folder.open()
    assert [(s.id, s.subject, s.trial) for s in dataset.samples] == [
        ("kick/subject1_trial1", "1", "1"),
        ("wave/subject2_trial10", "2", "10"),
    ]
    assert dataset.image_format("cam7").band == "lwir"
    assert "unrecognised names: 1, for example kick/other.npy" in dataset.remarks()[0]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_manifest(folder: Folder, kind: str) -> None:
    folder.clip("x/1.npy", value=10)
    folder.clip("x/2.npy", value=20)
    folder.clip("x/2rgb.npy")
    if kind == "csv":
        folder.manifest(
            "id,label,subject,view,trial,split,ir,rgb,mood",
            "one,wave,anna,left,1,train,x/1.npy,,good",
            "two,sit down,ben,,,test,x/2.npy,x/2rgb.npy,n/a",
        )
    else:
        folder.text(
            "manifest.jsonl",
            '{"id": "one", "label": "wave", "subject": "anna", "view": "left", "trial": 1, "split": "train", '
            '"ir": "x/1.npy", "mood": null}\n\n'
            '{"id": "two", "label": "sit down", "subject": "ben", "split": "test", "ir": "x/2.npy", '
            '"rgb": "x/2rgb.npy"}\n',
        )
    dataset = folder.open()
    assert dataset.labels == ("sit down", "wave")
    assert [(s.id, s.subject, s.view, s.trial, s.label) for s in dataset.samples] == [
        ("one", "anna", "left", "1", 1),
        ("two", "ben", "", "", 0),
    ]
    assert first_values(dataset, 1) == [20, 21, 22, 23, 24, 25]
    assert dataset.remarks()[0] == "columns that are not read: mood"


def test_the_session_of_a_recording_is_kept_without_a_remark(folder: Folder) -> None:
    folder.clip("x/1.npy")
    folder.clip("x/2.npy")
    folder.manifest("label,ir,session", "wave,x/1.npy,monday", "kick,x/2.npy,tuesday")
    dataset = folder.open()
    assert not any("session" in remark or "not read" in remark for remark in dataset.remarks())
    assert [row.notes for row in dataset.rows] == [{"session": "monday"}, {"session": "tuesday"}]


def test_intervals_and_offsets_cut_recordings(folder: Folder) -> None:
    folder.clip("long.npy", frames=100)
    folder.clip("late.npy", frames=100)
    folder.manifest(
        "id,label,start_s,end_s,ir,depth,depth_offset_s",
        "a,wave,0.5,1.0,long.npy,late.npy,0.2",
        "b,kick,1,2,long.npy,late.npy,2.5",
        "c,kick,2,,long.npy,late.npy,2.1",
    )
    folder.text("dataset.toml", "[modality.ir]\nfps = 10\n[modality.depth]\nfps = 10")
    dataset = folder.open()
    assert first_values(dataset) == [5, 6, 7, 8, 9]
    assert first_values(dataset, 0, "depth") == [3, 4, 5, 6, 7]
    assert dataset.probe(dataset.samples[0], "ir").frames == 5
    with pytest.raises(DataError, match=r"late\.npy begins after the piece of b has ended"):
        dataset.open(dataset.samples[1], "depth")
    late = dataset.open(dataset.samples[2], "depth")
    assert (len(late), late.stamps_ns[0]) == (100, 100_000_000)
    assert len({dataset.content_key(s, "ir") for s in dataset.samples}) == 3


def test_an_interval_of_a_video_is_cut_by_its_seconds(folder: Folder, write_video: Callable[..., Path]) -> None:
    images = [np.full((40, 48), k, np.uint8) for k in range(60)]
    write_video(folder.root / "long.mkv", images)
    folder.manifest("label,start_s,end_s,ir", "wave,1,1.5,long.mkv", "kick,1.5,9,long.mkv", "kick,1.9,,long.mkv")
    dataset = folder.open()
    assert [s.id for s in dataset.samples] == ["long@1", "long@1.5", "long@1.9"]
    assert first_values(dataset) == list(range(30, 45))
    with pytest.raises(DataError, match=r"long\.mkv lasts 2\.00 s, its piece extends from 1\.5 s to 9 s"):
        dataset.open(dataset.samples[1], "ir")
    assert first_values(dataset, 2) == [57, 58, 59]
    assert dataset.image_format("ir").fps == pytest.approx(30)


def test_sixteen_bit_grey_is_what_a_camera_replays(folder: Folder) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 65536, (4, 40, 48), dtype=np.uint16)
    for name in ("wave/1_ir.mkv", "kick/1_ir.mkv", "kick/1_rgb.mkv"):
        path = folder.root / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            writer = LosslessWriter(file, images[0], 30.0)
            for k, image in enumerate(images):
                writer.add(image, k * 40_000_000)
            writer.finish()
    dataset = folder.open()
    clip = dataset.open(dataset.samples[0], "ir")
    assert dataset.image_format("ir").dtype == "uint16"
    assert np.array_equal(clip.frames, images)
    camera = open_camera(f"replay:{path}", Wanted(dtype="uint16", channels=1))
    assert np.array_equal(clip.frames, [camera.read(1.0).image for _ in images])
    camera.close()
    assert list(clip.stamps_ns) == [0, 40_000_000, 80_000_000, 120_000_000]
    with pytest.raises(DataError, match=r"1_rgb\.mkv is grey of more than 8 bit"):
        dataset.open(dataset.samples[0], "rgb")


@pytest.mark.parametrize(("pixels", "largest"), [("gray10le", 1023), ("gray12le", 4095)])
def test_ten_and_twelve_bit_are_not_stretched(folder: Folder, pixels: str, largest: int) -> None:
    values = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 3 % (largest + 1)
    for label in ("wave", "kick"):
        path = folder.root / label / "1_thermal.mkv"
        path.parent.mkdir()
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=30)
            stream.width, stream.height, stream.pix_fmt = 48, 40, pixels
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, pixels)))
            container.mux(stream.encode())
    dataset = folder.open()
    assert np.array_equal(dataset.open(dataset.samples[0], "thermal").frames[0], values)


def test_folders_of_images_with_stamps(folder: Folder) -> None:
    for label in ("wave", "kick"):
        images = folder.root / label / "1_ir"
        images.mkdir(parents=True)
        for k, number in enumerate((1, 2, 10)):
            cv2.imwrite(str(images / f"frame{number}.png"), np.full((40, 48), 1000 * k, np.uint16))
        (images / "._frame1.png").write_bytes(b"junk of another system")
    folder.text("wave/1_ir/stamps.csv", "stamp_ns\n500\n1000000500\n1500000500\n")
    dataset = folder.open()
    kick, wave = (dataset.open(sample, "ir") for sample in dataset.samples)
    assert [int(frame[0, 0]) for frame in kick.frames] == [0, 1000, 2000]
    assert list(kick.stamps_ns) == [0, 33_333_333, 66_666_667]
    assert list(wave.stamps_ns) == [0, 1_000_000_000, 1_500_000_000]
    assert dataset.probe(dataset.samples[1], "ir") == (3, 1.5)
    before = dataset.content_key(dataset.samples[1], "ir")
    folder.text("wave/1_ir/stamps.csv", "0\n5\n")
    assert folder.open().content_key(dataset.samples[1], "ir") != before
    with pytest.raises(DataError, match=r"stamps\.csv is damaged: 2 stamps for 3 images"):
        dataset.open(dataset.samples[1], "ir")


def test_signals_and_skeletons(folder: Folder) -> None:
    for label in ("wave", "kick"):
        folder.clip(f"{label}/1_ir.npy")
        folder.text(f"{label}/1_acc.csv", "time,x,y,z\n0.00,1,2,3\n0.02,4,5,-6\n")
        folder.text(f"{label}/1_gyro.csv", "1,2,3\n4,5,-6\n7,8,9\n")
        folder.array(f"{label}/1_skeleton.npy", np.ones((6, 20, 3), np.float64))
    dataset = folder.open()
    assert dataset.sensors == ("acc", "gyro")
    acc, gyro = (dataset.open(dataset.samples[0], name) for name in ("acc", "gyro"))
    assert np.array_equal(acc.frames, [[1, 2, 3], [4, 5, -6]])
    assert list(acc.stamps_ns) == [0, 20_000_000]
    assert list(gyro.stamps_ns) == [0, 20_000_000, 40_000_000]
    assert dataset.signal_format("acc").value_range == (-12.0, 12.0)
    assert dataset.open(dataset.samples[0], "skeleton").frames.dtype == np.float32
    with pytest.raises(DataError, match="modality 'skeleton' of mine is a signal"):
        dataset.image_format("skeleton")


def test_dataset_toml_has_the_word(folder: Folder) -> None:
    folder.text(
        "dataset.toml",
        'name = "../my set"\nlabels = ["wave left", "none", "wave right", "stand"]\n'
        'mirror = [["wave left", "wave right"]]\n'
        "[modality.ir]\nband = 'lwir'\nunit = 'cK'\nrange = [0, 16383]\nfps = 9\nrotation = 90\n",
    )
    for label in ("wave left", "wave right", "stand", "none"):
        folder.array(f"{label}/1_ir.npy", np.arange(4 * 40 * 48, dtype=np.uint16).reshape(4, 40, 48))
    dataset = folder.open()
    assert dataset.name == "_my_set"
    assert dataset.labels == ("wave left", "none", "wave right", "stand")
    assert dataset.flip_labels == (2, 1, 0, 3)
    shown = dataset.image_format("ir")
    assert (shown.band, shown.value_unit, shown.value_range, shown.fps) == ("lwir", "cK", (0.0, 16383.0), 9.0)
    frames = dataset.open(dataset.samples[0], "ir").frames
    assert (frames.shape, frames[0, 0, -1], frames[0, 0, 0]) == ((4, 48, 40), 0, 39 * 48)  # turned clockwise


def test_high_pictures_are_scaled_down(folder: Folder) -> None:
    for label in ("wave", "kick"):
        folder.array(f"{label}/1_ir.npy", np.zeros((2, 100, 200), np.uint8))
    assert Files(folder.root, decode_height_px=50).open(folder.open().samples[0], "ir").frames.shape == (2, 50, 100)


def test_high_depth_is_not_scaled_down_by_the_reader(folder: Folder) -> None:
    """It would be averaged with its holes, and a live camera's is not."""
    for label in ("wave", "kick"):
        folder.array(f"{label}/1_depth.npy", np.full((2, 100, 200), 1500, np.uint16))
    assert Files(folder.root, decode_height_px=50).open(folder.open().samples[0], "depth").frames.shape == (2, 100, 200)


def people(folder: Folder, names: str, toml: str = "", column: str = "") -> Files:
    """Everybody does x and y, once each."""
    sides = dict(part.split("=") for part in column.split())
    rows = [(name, label) for name in names.split() for label in ("x", "y")]
    for name, label in rows:
        folder.clip(f"{name}{label}.npy")
    lines = (f"{name}{label},{label},{name},{sides.get(name, '')},{name}{label}.npy" for name, label in rows)
    folder.manifest("id,label,subject,split,ir", *lines)
    folder.text("dataset.toml", toml)
    return folder.open()


@pytest.mark.parametrize(
    ("names", "toml", "column", "expected"),
    [
        ("1 2 3 10", "", "", ("1 2", "3", "10")),
        ("a b c d e f g h", "", "", ("a b c d e", "f", "g h")),
        ("a b c", "test_subjects = ['a']", "", ("b", "c", "a")),
        ("a b c", "test_subjects = ['a']", "a=train b=test c=val", ("b", "c", "a")),
        ("a b c d", "", "b=test c=val", ("a d", "c", "b")),
        ("a b c d", "", "b=test", ("a c", "d", "b")),
        ("a b c d", "", "a=train b=train c=train d=val", ("a b", "d", "c")),
        ("anna ben chris", "", "", ("anna", "ben", "chris")),  # not by the length of names
        ("s10 s9 s1", "", "", ("s1", "s9", "s10")),
    ],
)
def test_sides(folder: Folder, names: str, toml: str, column: str, expected: tuple[str, str, str]) -> None:
    split = people(folder, names, toml, column).split("default")
    found = tuple(" ".join(dict.fromkeys(i[:-1] for i in side)) for side in ids(split))
    assert tuple(sorted(found[0].split())) == tuple(sorted(expected[0].split()))
    assert found[1:] == expected[1:]


def test_clips_are_split_where_nobody_knows_the_subjects(folder: Folder) -> None:
    for label in ("x", "y"):
        for k in range(8):
            folder.clip(f"{label}/{k}_ir.npy")
    dataset = folder.open()
    train, validation, test = ids(dataset.split("default"))
    assert (len(train), validation, test) == (10, ["x/5", "y/5"], ["x/6", "x/7", "y/6", "y/7"])
    assert dataset.splits() == ("default", "clips")
    assert any("the subjects are unknown" in remark for remark in dataset.remarks())


def test_folders_may_name_the_sides(folder: Folder) -> None:
    for side in ("train", "val", "test"):
        for label in ("x", "y"):
            folder.clip(f"{side}/{label}/1_ir.npy")
    assert ids(folder.open().split("default")) == (
        ["train/x/1", "train/y/1"],
        ["val/x/1", "val/y/1"],
        ["test/x/1", "test/y/1"],
    )


def test_a_validation_side_stays_one_where_no_folder_is_the_test_side(folder: Folder) -> None:
    for side, count in (("train", 4), ("val", 2)):
        for label in ("x", "y"):
            for k in range(count):
                folder.clip(f"{side}/{label}/{k}_ir.npy")
    dataset = folder.open()
    for name in ("default", "clips"):
        train, validation, test = ids(dataset.split(name))
        assert train == [f"train/{label}/{k}" for label in "xy" for k in range(3)]
        assert validation == ["val/x/0", "val/x/1", "val/y/0", "val/y/1"]
        assert test == ["train/x/3", "train/y/3"]
    remarks = "\n".join(dataset.remarks())
    assert "no recording is on the test side: the last quarter of each class's clips of the training side" in remarks
    assert "only one subject" not in remarks


def test_the_test_side_that_is_made_of_the_training_side_is_told(folder: Folder) -> None:
    remarks = people(folder, "a b c d", column="a=train b=train c=train d=val").remarks()
    assert "no recording is on the test side: subjects 'c' of the training side are used for it" in remarks


def test_one_subject_is_somebody(folder: Folder) -> None:
    remarks = "\n".join(people(folder, "anna").remarks())
    assert "one subject, anna, performs everything: nobody else is tested" in remarks
    assert "unknown" not in remarks


def test_subjects_of_the_validation_side_that_are_tested_are_told(folder: Folder) -> None:
    for name in ("a1", "b1", "a2", "b2"):
        folder.clip(f"{name}.npy")
    folder.manifest("label,subject,split,ir", "x,a,,a1.npy", "y,b,,b1.npy", "x,a,val,a2.npy", "x,b,val,b2.npy")
    assert "subjects on both the validation and the test side: 'b'" in folder.open().remarks()


def test_a_test_subject_is_found_in_any_spelling(folder: Folder) -> None:
    dataset = people(folder, "s01 s1 s2", "test_subjects = ['S1']")
    assert ids(dataset.split("default"))[2] == ["s01x", "s01y", "s1x", "s1y"]


def test_a_class_of_the_last_subject_alone_leaves_the_split_by_clips_a_validation_side(folder: Folder) -> None:
    pieces = [(who, label, k) for who in "abc" for label in "xy" for k in (1, 2)] + [("c", "z", k) for k in range(4)]
    folder.clip("1.npy")
    lines = (f"{who}{label}{k},{label},{who},{n},{n + 1},1.npy" for n, (who, label, k) in enumerate(pieces))
    folder.manifest("id,label,subject,start_s,end_s,ir", *lines)
    dataset = folder.open()
    with pytest.raises(DataError, match="no training sample of 'z'"):
        dataset.split("default")
    _, validation, test = ids(dataset.split("clips"))
    assert test == ["cx2", "cy2", "cz3"]
    assert validation == ["cx1", "cy1", "cz2"]


def test_one_subject_is_left_out(folder: Folder) -> None:
    dataset = people(folder, "a b c")
    assert dataset.splits() == ("default", "clips", "subject_a", "subject_b", "subject_c")
    assert ids(dataset.split("subject_b")) == (["ax", "ay"], ["cx", "cy"], ["bx", "by"])


def test_gaps_of_long_recordings_are_background(folder: Folder) -> None:
    folder.clip("long.npy", frames=600)
    folder.clip("short.npy", frames=300)
    folder.manifest(
        "id,label,start_s,end_s,ir",
        "a,wave,4,6,long.npy",
        "b,kick,6.2,8,long.npy",
        "c,,10,12,long.npy",
        "d,kick,13,15,long.npy",
        "e,wave,3,5,short.npy",
    )
    folder.text("dataset.toml", "background = 'none'")
    dataset = folder.open()
    assert dataset.labels == ("kick", "none", "wave")
    pieces = {s.id: dataset.open(s, "ir").frames for s in dataset.samples if s.label == 1}
    spans = {name: (int(f[0, 0, 0]), len(f)) for name, f in pieces.items()}
    assert spans == {
        "a-before-0": (0, 60),
        "a-before-1": (60, 60),
        "c-before-0": (240, 60),
        "d-before-0": (104, 30),  # frame 360, of which a byte keeps 104
        "d-after-0": (194, 75),
        "d-after-1": (13, 75),
    }


def test_background_ends_with_the_shorter_recording(folder: Folder) -> None:
    folder.clip("long.npy", frames=300)
    folder.clip("late.npy", frames=180)
    folder.manifest(
        "id,label,start_s,end_s,ir,depth,depth_offset_s", *(f"{k},x{k},{k},{k + 1},long.npy,late.npy,1" for k in (2, 3))
    )
    folder.text("dataset.toml", "background = 'none'")
    dataset = folder.open()
    assert dataset.labels == ("none", "x2", "x3")
    after = {s.id: dataset.open(s, "ir").frames for s in dataset.samples if "after" in s.id}
    assert {name: (int(f[0, 0, 0]), len(f)) for name, f in after.items()} == {
        "3-after-0": (120, 30), "3-after-1": (150, 30), "3-after-2": (180, 30)
    }  # fmt: skip
    assert len(dataset.open(next(s for s in dataset.samples if s.id == "3-after-2"), "depth")) == 30
    (folder.root / "late.npy").write_bytes(b"damaged")
    assert not any("after" in s.id for s in folder.open().samples)


def test_labelled_pieces_are_no_background_whatever_modalities_their_rows_have(folder: Folder) -> None:
    folder.clip("long.npy", frames=480)
    folder.clip("long_rgb.npy", frames=480)
    folder.manifest(
        "label,subject,ir,rgb,start_s,end_s",
        "wave,a,long.npy,long_rgb.npy,2,4",
        "kick,a,long.npy,,6,8",
        "wave,a,,long_rgb.npy,10,12",  # shares no file with the row before it
        "kick,a,long.npy,,14,16",
    )
    folder.text("dataset.toml", "background = 'none'")
    gaps = sorted((row.start_s, row.end_s, " ".join(row.files)) for row in folder.open().rows if row.label == "none")
    assert gaps == [(0, 2, "ir rgb"), (4, 6, "ir"), (8, 10, "rgb"), (12, 14, "ir")]


def test_pieces_on_another_clock_are_no_background(folder: Folder) -> None:
    folder.clip("long.npy", frames=600)
    folder.manifest(
        "label,ir,ir_offset_s,start_s,end_s",
        "wave,long.npy,,0,2",
        "wave,long.npy,,4,6",
        "wave,long.npy,,8,20",
        "wave,long.npy,3,5,7",  # 2 to 4 s of the file: all of the first gap
        "wave,long.npy,3,9.5,10.5",  # 6.5 to 7.5 s
        "kick,kick.npy,,,",
    )
    folder.clip("kick.npy")
    assert [(row.start_s, row.end_s) for row in folder.open().between() if not row.offsets_s] == []


def test_recordings_that_share_a_file_on_clocks_of_their_own_have_gaps(folder: Folder) -> None:
    for name, frames in (("one", 180), ("two", 180), ("both", 600)):
        folder.clip(f"{name}.npy", frames=frames)
    folder.manifest(
        "label,ir,depth,depth_offset_s,start_s,end_s",
        *(f"{label},{ir}.npy,both.npy,{late},{k},{k + 2}" for ir, late in (("one", 0), ("two", -10))
          for label, k in (("wave", 0), ("kick", 4))),
    )  # fmt: skip
    gaps = [(str(row.files["ir"]), row.start_s, row.end_s) for row in folder.open().between()]
    assert gaps == [("one.npy", 2, 4), ("two.npy", 2, 4)]


def test_without_gaps_there_is_no_background(folder: Folder) -> None:
    folder.clip("wave/1_ir.npy")
    folder.clip("kick/1_ir.npy")
    folder.text("dataset.toml", "labels = ['wave', 'kick']\nbackground = 'none'")
    assert folder.open().labels == ("wave", "kick")


def test_what_dataset_toml_says_of_nothing_is_remarked(folder: Folder) -> None:
    folder.clip("wave/1_ir.npy")
    folder.clip("kick/1_ir.npy")
    folder.text("dataset.toml", "background = 'none'\nmirror = []\n[modality.ir]\nfps = 30\n[modality.irr]\nfps = 15")
    assert folder.open().remarks()[-2:] == (
        "[modality.irr] in dataset.toml matches no recording (did you mean 'ir'?): there is ir",
        "background = 'none' in dataset.toml adds no class: it needs gaps between pieces of one recording "
        "(start_s and end_s, at least two rows), and there are none",
    )
    folder.text("dataset.toml", "background = 'kick'\nmirror = []\n[modality.ir]\nfps = 30")
    assert not any("dataset.toml" in remark for remark in folder.open().remarks())


def test_clips_that_a_robot_kept_are_read_once_they_are_labelled(folder: Folder) -> None:
    folder.clip("ir0_20260101T000000_0.npy", frames=90)
    row = (
        "ir0_{0},{1},,ir0,,,0.5,1.5,ir0_20260101T000000_0.npy,wave,0.41,unknown,low_confidence,v1,2026-01-01T00:00:00Z"
    )
    folder.manifest(
        ",".join((*KEYS, "ir", *NOTES)),
        *(row.format(k, label) for k, label in enumerate(("wave", "sit", ""))),
    )
    with pytest.raises(DataError, match="'wave' and 'sit' overlap"):
        folder.open()
    folder.clip("other.npy", frames=90)
    manifest = folder.root / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("1.5,ir0_20260101T000000_0.npy", "1.5,other.npy", 1))
    dataset = folder.open()
    assert [s.id for s in dataset.samples] == ["ir0_0", "ir0_1"]
    assert dataset.remarks()[:2] == (
        "columns that are not read: suggestion, confidence, state, reason, model, recorded",
        "1 of 3 rows have no label yet and are used only by dense stages",
    )
    assert len(dataset.open(dataset.samples[0], "ir")) == 30


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("id,ir", "a,1.npy"), "has the columns id, ir. Expected a column 'label'"),
        (("label,mood", "x,good"), "names no file"),
        (("label,ir", "x,../1.npy", "y,1.npy"), "line 2: ir '../1.npy' lies outside the folder"),
        (("label,ir", "x,/etc/1.npy", "y,1.npy"), "line 2: ir '/etc/1.npy' lies outside"),
        (("label,ir", "x,2.npy", "y,1.npy"), "line 2: no ir file 2.npy"),
        (("label,ir", "x,./", "y,1.npy"), "line 2: ir './' is the folder itself"),
        (("label,ir", f"x,{'long' * 100}", "y,1.npy"), "line 2: no ir file longlong"),
        (("label,ir", "x,", "y,1.npy"), "line 2: no file of any modality"),
        (
            ("label,start_s,end_s,ir", "x,3,2,1.npy", "y,,,1.npy"),
            "line 2: the piece ends at 2 s, before it begins at 3",
        ),
        (("label,start_s,ir", "x,-3,1.npy"), "line 2: start_s -3 is before the recording"),
        (("label,start_s,ir", "x,soon,1.npy"), "line 2: start_s 'soon' is not a number of seconds"),
        (("label,start_s,ir", "x,nan,1.npy"), "line 2: start_s 'nan' is not a number of seconds"),
        (("id,label,ir", "a,x,1.npy", "a,x,1.npy"), "lines 2 and 3: two rows with id 'a'"),
        (
            ("id,label,ir", "a,x,1.npy", "b,X,1.npy"),
            "lines 2 and 3: labels 'x' and 'X' differ by capitals or blanks only",
        ),
        (("id,label,ir", "a,x,1.npy", "b,y,1.npy"), "lines 2 and 3: 'x' and 'y' overlap in 1.npy"),
        (("label,split,ir", "x,best,1.npy"), "line 2: split 'best' is not train, val or test"),
        (("label,ir",), "manifest.csv has no rows. Expected a row for each recording"),
        (("label,ir", "x,a\\1.npy", "y,1.npy"), "line 2: no ir file a\\1.npy, but one with / instead of \\"),
        (("label,start_s,end_s,ir", "x,1,1,1.npy"), "line 2: the piece begins and ends at 1 s"),
        (("label,start_s,end_s,ir", "x,1,soon,1.npy"), "csv: line 2: end_s 'soon' is not a number of seconds. "),
        (("label,start_s,end_s,ir", "x,soon,0,1.npy"), "csv: line 2: start_s 'soon' is not a number of seconds. "),
        (("label,start,end,ir", "x,0,1,1.npy", "x,1,2,1.npy"), "column 'start' is not read (did you mean 'start_s'?)"),
        (("id,label,ir", "a,x,1.npy", "b,x,1.npy"), "lines 2 and 3: the same piece of 1.npy twice. "),
        (("id,label,start_s,end_s,ir", "a,x,1,2,1.npy", "b,x,1,3,1.npy", "c,x,1,2,1.npy"), "lines 2 and 4: the same"),
        (("id,label,view,ir", "a,x,1,1.npy", "b,x,2,1.npy"), "lines 2 and 3: the same piece of 1.npy twice. "),
        (("label,ir", "x,1.npy,3"), "line 2 has 3 cells for 2 columns"),
        (("label,ir,ir", "x,1.npy,1.npy"), "two columns are named 'ir'"),
        (("label,ir", "x\u202e,1.npy"), "line 2: label 'x\\u202e' is not a valid class name"),
        (("label,ir", *(f"x,{k}.npy" for k in range(5, 10))), "; and 2 more"),
        (("label,ir", "x,1.npy"), "one class, 'x'. Expected at least two classes"),
        (("label,ir", ",1.npy"), "has no labelled recording"),
    ],
)
def test_faults_of_a_manifest(folder: Folder, lines: tuple[str, ...], message: str) -> None:
    folder.clip("1.npy")
    folder.clip("a/1.npy")
    folder.manifest(*lines)
    with pytest.raises(DataError) as error:
        folder.open()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absolute_path_inside_the_folder_is_not_called_outside(folder: Folder) -> None:
    path = folder.clip("1.npy")
    folder.manifest("label,ir", f"x,{path}")
    with pytest.raises(DataError, match=r"line 2: ir '.*1\.npy' is absolute, not relative to the folder"):
        folder.open()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,ir\nh\xe9,1.npy\n".encode("latin-1"), "with bytes that are not UTF-8 (save the table as UTF-8)"),
        ("label,ir\nx,\xe9.npy\n".encode("latin-1"), "with bytes that are not UTF-8 (save the table as UTF-8)"),
        ("label,ir\nx,1.npy\n".encode("utf-16"), "manifest.csv is UTF-16. Expected UTF-8"),
    ],
)
def test_other_encodings_are_told(folder: Folder, content: bytes, message: str) -> None:
    folder.clip("1.npy")
    (folder.root / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        folder.open()
    assert message in str(error.value)


def test_tabs_stand_between_cells_and_only_line_ends_end_lines_of_json(folder: Folder) -> None:
    folder.clip("1.npy")
    folder.clip("2.npy")
    path = folder.manifest("label\tir", "wave, twice\t1.npy", "kick\t2.npy")
    assert folder.open().labels == ("kick", "wave, twice")
    path.unlink()
    folder.text(
        "manifest.jsonl",
        '{"label": "x", "ir": "1.npy", "note": "a\u2028b\x85c"}\r\n{"label": "y", "ir": "2.npy"}\n',
    )
    assert folder.open().labels == ("x", "y")


def test_two_views_may_share_the_file_of_a_sensor(folder: Folder) -> None:
    for name in ("1.npy", "2.npy", "3.npy", "4.npy"):
        folder.clip(name)
    folder.manifest("id,label,view,ir,thermal", "a,x,1,1.npy,3.npy", "b,x,2,2.npy,3.npy", "c,y,1,4.npy,")
    assert len(folder.open().samples) == 3


def test_columns_that_were_meant_to_cut_are_remarked(folder: Folder) -> None:
    folder.clip("1.npy")
    folder.clip("2.npy")
    folder.manifest("label,Start,end_time,ir", "x,0,0.1,1.npy", "y,0,0.1,2.npy")
    assert folder.open().remarks()[:3] == (
        "columns that are not read: Start, end_time",
        "column 'Start' does not cut recordings (did you mean 'start_s'?)",
        "column 'end_time' does not cut recordings (did you mean 'end_s'?)",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1"),
        ("[1]", "line 1 is not an object of plain values"),
        ('{"label": {"a": 1}}', "line 1 is not an object of plain values"),
    ],
)
def test_faults_of_json(folder: Folder, text: str, message: str) -> None:
    folder.text("manifest.jsonl", text)
    with pytest.raises(DataError, match=message):
        folder.open()


def test_faults_of_folders(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"mine contains no recording\. Expected CLASS/NAME_MODALITY"):
        folder.open()
    with pytest.raises(DataError, match="no folder"):
        Files(folder.root / "absent")
    folder.clip("wave/1_ir.npy")
    with pytest.raises(DataError, match="one class, 'wave'"):
        folder.open()
    folder.clip("1_ir.npy")
    folder.clip("kick/1_ir.npy")
    folder.clip("a\x1b[2J/1_ir.npy")
    with pytest.raises(DataError, match=r"has a folder 'a\\x1b\[2J'"):
        folder.open()
    (folder.root / "a\x1b[2J").rename(folder.root / ".hidden")
    assert folder.open().remarks()[0] == "recordings without a class, used only by dense stages: 1, for example 1"
    folder.text("wave/1_ir.mkv", "another")
    with pytest.raises(DataError, match="are both the ir of '1'"):
        folder.open()
    folder.manifest("label,ir", "x,1_ir.npy")
    folder.text("manifest.jsonl", "{}")
    with pytest.raises(DataError, match="one manifest"):
        folder.open()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("lables = ['a']", "dataset.toml has 1 fault: lables: unknown key (did you mean 'labels'?)"),
        ("labels = ['kick', 'Kick']", "two of them are the same"),
        ("labels = ['kick', 'wavy']", "has the class 'wave' (did you mean 'wavy'?)"),
        ("mirror = [['kick', 'jump']]", "mirror in dataset.toml names 'jump'"),
        ("mirror = [['kick', 'wave'], ['wave', 'kick']]", "a class is in two pairs"),
        ("pattern = 'x{who}'", "pattern 'x{who}'. Expected fields out of {subject}"),
        ("pattern = 'z{subject}'", "matches the pattern"),
        ("[modality.'a/b']", "1 fault"),
        ("[modality.ir]\nrotation = 45", "rotation"),
        ("[modality.ir]\nrange = [0, nan]", "modality.ir.range.1: must be a finite number, got nan"),
        ("[modality.ir]\nrange = [255, 0]", "[255.0, 0.0] is not the lowest and the highest value"),
        ("[modality.ir]\nrange = [0, 0]", "[0.0, 0.0] is not the lowest and the highest value"),
        ("[modality.ir]\nrange = [0, 1e300]", "modality.ir.range.1"),
    ],
)
def test_faults_of_dataset_toml(folder: Folder, toml: str, message: str) -> None:
    folder.clip("wave/1_ir.npy")
    folder.clip("kick/1_ir.npy")
    folder.text("dataset.toml", toml)
    with pytest.raises((ConfigError, DataError)) as error:
        folder.open()
    assert message in str(error.value)


def test_damage_everywhere_is_told_file_by_file(folder: Folder) -> None:
    for label in ("wave", "kick"):
        folder.text(f"{label}/1_ir.npy", "damaged")
    dataset = folder.open()
    report = check(dataset, split="default")
    assert sorted(report.modalities[0].unusable) == ["kick/1", "wave/1"]
    assert not report.trainable
    assert dataset.sensors == ()


def test_a_recording_too_long_for_one_clip(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.clip("wave/1_ir.npy", frames=60)
    folder.clip("kick/1_ir.npy", frames=60)
    monkeypatch.setattr("kd_edge.data.readers.files.media.MOST_BYTES", 59 * 40 * 48)
    dataset = folder.open()
    with pytest.raises(DataError, match=r"takes 0\.0 GB. Expected clips of at most"):
        dataset.open(dataset.samples[0], "ir")


def test_any_bytes_make_a_name(folder: Folder) -> None:
    for label in ("wave", "kick"):
        path = folder.clip(f"{label}/x_ir.npy")
        path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff\n_ir.npy"))
    dataset = folder.open()
    assert [s.id for s in dataset.samples] == ["kick/\\udcff\\n", "wave/\\udcff\\n"]
    assert len(dataset.open(dataset.samples[0], "ir")) == 6
    assert dataset.content_key(dataset.samples[0], "ir")


def test_an_unknown_test_subject(folder: Folder) -> None:
    with pytest.raises(DataError, match=r"test_subjects in dataset\.toml names 'z'"):
        people(folder, "a b", "test_subjects = ['z']").split("default")


def test_faults_of_single_files_leave_the_others_usable(folder: Folder) -> None:
    folder.text("wave/0_ir.npy", "damaged")
    folder.clip("wave/1_ir.npy")
    folder.clip("kick/2_ir.npy", dtype=np.uint16)
    folder.array("kick/3_ir.npy", np.zeros((2, 3), np.int64))
    folder.array("kick/4_ir.npy", np.zeros((1, 10, 10**7), np.uint8))
    folder.clip("kick/5_ir.npy")
    (folder.root / "kick/6_ir.npy").symlink_to("absent")
    dataset = folder.open()
    faults = {}
    for sample in dataset.samples:
        try:
            dataset.open(sample, "ir")
        except DataError as error:
            faults[sample.id] = error.found.removeprefix(f"{folder.root}/{sample.id}_ir.npy ")
    assert faults.keys() == {"kick/3", "kick/4", "kick/5", "kick/6", "wave/0", "wave/1"}
    assert faults["kick/5"] == "is uint8, ir is uint16"
    assert faults["kick/3"].startswith("is damaged: it contains int64 (2, 3), not uint8 or uint16")
    assert "pixels, not 1 to" in faults["kick/4"]
    assert faults["kick/6"].startswith("no file")


@pytest.mark.parametrize("way", ["folders", "manifest"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_lead_out_of_the_folder_only_where_that_is_wanted(folder: Folder, way: str, what: str) -> None:
    outside = folder.root.parent / "elsewhere"
    outside.mkdir()
    folder.clip("kick/1_ir.npy")
    folder.clip("../elsewhere/1_ir.npy", value=7)
    if what == "folder":
        (folder.root / "wave").symlink_to(outside)
    else:
        (folder.root / "wave").mkdir()
        (folder.root / "wave/1_ir.npy").symlink_to(outside / "1_ir.npy")
    if way == "manifest":
        folder.manifest("label,ir", "kick,kick/1_ir.npy", "wave,wave/1_ir.npy")
    with pytest.raises(DataError, match=r"link.*links = true in dataset\.toml"):
        folder.open()
    folder.text("dataset.toml", "links = true")
    assert first_values(folder.open(), 1)[0] == 7


def test_links_inside_the_folder_are_followed(folder: Folder) -> None:
    folder.clip("kick/1_ir.npy")
    folder.clip("store/wave.npy", value=7)
    (folder.root / "wave").mkdir()
    (folder.root / "wave/1_ir.npy").symlink_to("../store/wave.npy")
    folder.manifest("label,ir", "kick,kick/1_ir.npy", "wave,wave/1_ir.npy")
    assert first_values(folder.open(), 1)[0] == 7


def test_numbers_for_labels_are_in_their_order(folder: Folder) -> None:
    for label in ("10", "9", "0", "b", "a"):
        folder.clip(f"{label}/1_ir.npy")
    assert folder.open().labels == ("a", "b", "0", "9", "10")


def picture(folder: Folder, *names: str) -> None:
    for name in names:
        path = folder.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((40, 48), np.uint8))


def test_a_class_of_single_images_is_no_class_of_clips(folder: Folder) -> None:
    picture(folder, *(f"{label}/{k}.png" for label in ("sit down", "wave") for k in range(3)))
    with pytest.raises(DataError, match=r"images in sit down without a class folder .*/CLIP/0001\.png: an action"):
        folder.open()


def test_pictures_beside_recordings_are_told_and_not_read(folder: Folder) -> None:
    picture(folder, "wave/thumb.jpg", "sit/plot.png", "sit/1_ir/1.png", "sit/1_ir/2.png", "sit/2_ir/1.png")
    folder.clip("wave/1_ir.npy")
    folder.clip("wave/2_ir.npy")
    dataset = folder.open()
    assert [s.id for s in dataset.samples] == ["sit/1", "sit/2", "wave/1", "wave/2"]
    assert "files with unrecognised names: 2, for example sit/plot.png" in dataset.remarks()


def sensor(folder: Folder, *lines: str, toml: str = "") -> tuple[list[list[float]], list[int]]:
    """What a file of a sensor is read as."""
    for label in ("wave", "kick"):
        folder.text(f"{label}/1_imu.csv", "\n".join(lines))
    folder.text("dataset.toml", f"[modality.imu]\nrate_hz = 100\n{toml}")
    dataset = folder.open()
    clip = dataset.open(dataset.samples[0], "imu")
    return clip.frames.tolist(), (clip.stamps_ns // 1_000_000).tolist()


@pytest.mark.parametrize(
    ("lines", "toml", "stamps"),
    [
        (("time,x,y,z", "0.5,1,2,3", "0.52,4,5,6"), "", [0, 20]),
        (("X,Y,Z,Time", "1,2,3,0.5", "4,5,6,0.52"), "", [0, 20]),
        (("time\tx\ty\tz", "500\t1\t2\t3", "520\t4\t5\t6"), "", [0, 20]),
        (("1,2,3", "4,5,6"), "", [0, 10]),
        (("1 2 3 0.5", "4 5 6 0.52"), "", [0, 20]),
        (("t,gx,ay,ax,x,y,z", "0.5,9,9,9,1,2,3", "0.52,9,9,9,4,5,6"), "columns = ['x', 'y', 'z']", [0, 20]),
        (("a x,a y,a z,g x,g y,g z", "9,9,9,1,2,3", "9,9,9,4,5,6"), "columns = ['G x', 'G y', 'G z']", [0, 10]),
    ],
)
def test_axes_and_time_of_a_sensor(folder: Folder, lines: tuple[str, ...], toml: str, stamps: list[int]) -> None:
    assert sensor(folder, *lines, toml=toml) == ([[1, 2, 3], [4, 5, 6]], stamps)


@pytest.mark.parametrize(
    ("lines", "toml", "message"),
    [
        (("time,ax,ay,az,gx,gy,gz", "0,1,2,3,4,5,6"), "", "time, ax, ay, az, gx, gy, gz. Expected the axes x"),
        (("ax,ay,az,gx", "1,2,3,4"), "", "has the columns ax, ay, az, gx"),
        (("time,x,y", "0,1,2"), "", "has the columns time, x, y"),
        (("x,time,y,z", "1,0,2,3"), "", "next to each other, and the time"),
        (("time,x,y,z", "0,1,2,3"), "columns = ['gx', 'gy', 'gz']", "Expected the axes gx, gy, gz"),
        (("1,2,3", "4,5,6"), "columns = ['gx', 'gy', 'gz']", "has columns without names"),
    ],
)  # fmt: skip
def test_which_axes_are_meant_is_not_guessed(folder: Folder, lines: tuple[str, ...], toml: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        sensor(folder, *lines, toml=toml)
    assert message in str(error.value)
    assert "columns = ['x', 'y', 'z'] below the modality" in str(error.value)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (5, 20, 30\n",  # Python's tokenizer raises no ValueError
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (5, -20, 30)}\n",
        b"(" * 9000 + b"\n",
    ],
)
def test_a_damaged_header_of_an_array_is_told(folder: Folder, header: bytes) -> None:
    folder.clip("wave/1_ir.npy")
    folder.clip("kick/1_ir.npy")
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(3000)
    (folder.root / "wave" / "1_ir.npy").write_bytes(content)
    dataset = folder.open()
    with pytest.raises(DataError, match=r"wave/1_ir\.npy is damaged"):
        dataset.open(dataset.samples[1], "ir")
