"""Skeletons of one's own, as joints and as the pictures a network sees of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kd_edge.data.readers.files.skeletons import draw, upright
from kd_edge.errors import DataError
from tests.data.files.conftest import Folder

TWO = ((0, 1),)


def joints(frames: int = 6, count: int = 20) -> np.ndarray:
    """A column of joints that goes to the right, one unit a frame."""
    values = np.zeros((frames, count, 3), np.float32)
    values[..., 0] = np.arange(frames)[:, None] + 1
    values[..., 1] = np.linspace(2, 1, count)
    values[..., 2] = 3
    return values


def written(folder: Folder, ending: str, values: np.ndarray) -> None:
    for label in ("wave", "sit"):
        folder.clip(f"{label}/1_ir.npy")
        name = f"{label}/1_skeleton{ending}"
        if ending == ".npy":
            folder.array(name, values)
        elif ending == ".json":
            folder.text(name, json.dumps(values.tolist()))
        else:
            folder.text(name, "\n".join(",".join(map(str, frame.ravel())) for frame in values))


@pytest.mark.parametrize("ending", [".npy", ".json", ".csv"])
def test_joints_are_read_and_drawn(folder: Folder, ending: str) -> None:
    written(folder, ending, joints())
    dataset = folder.open()
    assert dataset.modalities == ("ir", "skeleton", "pose")
    assert dataset.sensors == ()
    sample = dataset.samples[1]
    read = dataset.open(sample, "skeleton")
    assert read.frames.dtype == np.float32
    assert np.array_equal(read.frames, joints())
    shown = dataset.image_format("pose")
    assert (shown.band, shown.dtype, shown.channels, shown.fps) == ("rgb", "uint8", 3, 30.0)
    drawn = dataset.open(sample, "pose")
    assert drawn.frames.shape == (6, 240, 320, 3)
    assert np.array_equal(drawn.stamps_ns, read.stamps_ns)
    assert dataset.probe(sample, "pose") == dataset.probe(sample, "skeleton") == (6, pytest.approx(1 / 6))
    assert dataset.content_key(sample, "pose") != dataset.content_key(sample, "skeleton")
    assert dataset.remarks()[-1].startswith("pictures are not mirrored")
    with pytest.raises(DataError, match=r"modality 'skeleton' of mine is a signal\. Expected an image .* 'ir', 'pose'"):
        dataset.image_format("skeleton")


def test_a_drawing_follows_the_joints() -> None:
    values = np.array([[[0, 0, 1], [0, 2, 1]], [[4, 0, 1], [4, 2, 1]]], np.float32)
    images = draw(values, TWO)
    columns = [np.flatnonzero(image.any((0, 2))) for image in images]
    # 4 units fill 80 % of 320 pixels, so a unit has 64; the middle of both frames is the picture's.
    assert (columns[0].mean(), columns[1].mean()) == (pytest.approx(160 - 128, abs=1), pytest.approx(160 + 128, abs=1))
    rows = np.flatnonzero(images[0].any((1, 2)))
    assert (rows.min(), rows.max()) == (pytest.approx(120 - 64 - 3, abs=2), pytest.approx(120 + 64 + 3, abs=2))


def test_axes_and_joints_that_were_not_seen() -> None:
    values = np.array([[[1, 0, 5], [1, 1, 9], [3, 0, 5]]], np.float32)
    upright, turned, deep = (draw(values, TWO, up)[0] for up in ("y", "-y", "z"))  # type: ignore[arg-type]
    assert upright[:120, :160].any() or upright[120:, :160].any()
    assert np.array_equal(upright[::-1].any(2).sum(1)[:239], turned.any(2).sum(1)[1:])  # the same, upside down
    assert not np.array_equal(deep, upright)
    for unseen in (np.nan, 0.0):
        lost = values.copy()
        lost[0, 1] = unseen
        image = draw(lost, TWO)[0]
        assert 0 < image.any(2).sum() < upright.any(2).sum()
    assert not draw(np.zeros((2, 3, 3), np.float32)).any()
    assert draw(np.ones((1, 5, 3), np.float32)).any()  # a layout that nobody knows: dots


@pytest.mark.parametrize("count", [17, 20, 21, 25, 33])
def test_usual_layouts_have_limbs_that_reach_every_body_part(count: int) -> None:
    values = np.random.default_rng(0).uniform(1, 2, (1, count, 3)).astype(np.float32)
    coloured = (draw(values)[0].std(2) > 0).sum()
    assert coloured > 200


def test_pieces_stamps_and_offsets_of_skeletons(folder: Folder) -> None:
    folder.clip("long.npy", frames=100)
    lines = [f"{k * 0.1:.1f},{k + 1},1,1,{k + 1},2,1" for k in range(50)]
    folder.text("long.csv", "\n".join(("time,head_x,head_y,head_z,hip_x,hip_y,hip_z", *lines)))
    folder.manifest(
        "id,label,start_s,end_s,ir,skeleton,skeleton_offset_s",
        "a,wave,1,2,long.npy,long.csv,0.5",
        "b,sit,2,3,long.npy,long.csv,0.5",
    )
    folder.text("dataset.toml", "[modality.skeleton]\nfps = 10\nlimbs = [[0, 1]]")
    dataset = folder.open()
    clip = dataset.open(dataset.samples[0], "skeleton")
    assert clip.frames[:, 0, 0].tolist() == list(range(6, 16))
    assert clip.stamps_ns.tolist() == [100_000_000 * k for k in range(10)]
    assert dataset.open(dataset.samples[0], "pose").frames.shape == (10, 240, 320, 3)


def test_a_column_of_drawings_is_left_alone(folder: Folder) -> None:
    for k in (1, 2):
        folder.array(f"s{k}.npy", joints())
        folder.array(f"p{k}.npy", np.zeros((6, 40, 48, 3), np.uint8))
    folder.manifest("id,label,skeleton,pose", "a,wave,s1.npy,p1.npy", "b,sit,s2.npy,p2.npy")
    dataset = folder.open()
    assert dataset.modalities == ("skeleton", "pose")
    assert dataset.open(dataset.samples[0], "pose").frames.shape == (6, 40, 48, 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "1,2,3,4\n1,2,3,4", "4 columns, where each joint has three"),
        ("s.csv", "", "it contains no line of numbers"),
        ("s.csv", "1,2,3\n1,2", "is not a skeleton"),
        ("s.csv", "1,2,3\n1,x,3", "could not convert string to float: 'x'"),
        ("s.json", "[[[1, 2, 3], [1, 2]]]", "is not a skeleton"),
        ("s.json", "[", "is not a skeleton"),
        ("s.json", "{}", "is not a skeleton"),
        ("s.json", '{"joints": [[[1, 2, 3]], [[1, 2, 3]]], "stamp_ns": [5, 5]}', "not one increasing stamp per frame"),
        ("s.json", "[[1, 2, 3]]", "it contains (1, 3) numbers"),
        ("s.json", '[[["a", 2, 3]]]', "could not convert string to float"),
        ("s.json", "[[[1, 2, 3, 4, 5]]]", "it contains float32 (1, 1, 5), not (T, J, 3) numbers"),
    ],
)
def test_faults_of_skeletons(folder: Folder, name: str, text: str, message: str) -> None:
    folder.clip("1.npy")
    folder.clip("2.npy")
    folder.text(name, text)
    folder.manifest("id,label,ir,skeleton", f"a,wave,1.npy,{name}", "b,sit,2.npy,")
    dataset = folder.open()
    for modality in ("skeleton", "pose"):
        with pytest.raises(DataError) as error:
            dataset.open(dataset.samples[0], modality)
        assert message in str(error.value)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_an_array_of_another_shape_is_no_skeleton(folder: Folder) -> None:
    folder.array("s.npy", np.ones((6, 60), np.float32))
    folder.clip("2.npy")
    folder.manifest("id,label,ir,skeleton", "a,wave,,s.npy", "b,sit,2.npy,")
    dataset = folder.open()
    with pytest.raises(DataError, match=r"s\.npy is not a skeleton: it contains float32 \(6, 60\)"):
        dataset.open(dataset.samples[0], "skeleton")


@pytest.mark.parametrize(
    ("kind", "up", "place", "expected"),
    [
        ("xyz", "y", [1, 2, 3], [1, 2, 3]),
        ("xyz", "-y", [1, 2, 3], [1, -2, 3]),  # an optical frame: y downwards, z away
        ("xyz", "z", [1, 2, 3], [1, 3, 2]),  # a robot's world seen along y: z upwards, y away
        ("xyz", "-z", [1, 2, 3], [1, -3, -2]),
        ("xy", "-y", [40, 30], [40, -30, 0]),
        ("xyc", "-y", [40, 30, 0.2], [40, -30, 0]),
        ("xyzc", "y", [1, 2, 3, 1], [1, 2, 3]),
        ("xyc", "-y", [40, 30, 0], [np.nan] * 3),
        ("xyzc", "y", [1, 2, 3, -1], [np.nan] * 3),
        ("xyzc", "y", [1, 2, 3, np.nan], [np.nan] * 3),
        ("xyz", "y", [1, 2, np.inf], [np.nan] * 3),
        ("xyz", "y", [0, 0, 0], [np.nan] * 3),
        ("xyz", "y", [0, 0, 1], [0, 0, 1]),
    ],
)
def test_axes_of_all_skeletons(kind: str, up: str, place: list[float], expected: list[float]) -> None:
    found = upright(np.array([[place]], np.float32), kind, up)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[expected]])


def test_key_points_in_a_picture_with_their_confidence(folder: Folder) -> None:
    """Three joints of an x, a y that counts rows, and a confidence; the last one is not seen in the second frame."""
    for label in ("wave", "sit"):
        folder.clip(f"{label}/1_ir.npy")
        folder.text(f"{label}/1_skeleton.csv", "10,20,0.9,30,40,0.8,50,60,0.7\n10,21,0.9,30,41,0.8,50,61,0")
    folder.text("dataset.toml", '[modality.skeleton]\njoint = "xyc"\nup = "-y"')
    dataset = folder.open()
    clip = dataset.open(dataset.samples[0], "skeleton")
    nan = np.nan
    np.testing.assert_array_equal(
        clip.frames, [[[10, -20, 0], [30, -40, 0], [50, -60, 0]], [[10, -21, 0], [30, -41, 0], [nan, nan, nan]]]
    )
    assert dataset.open(dataset.samples[0], "pose").frames.shape == (2, 240, 320, 3)


def test_a_joint_of_other_numbers_than_was_said(folder: Folder) -> None:
    written(folder, ".npy", joints())
    folder.text("dataset.toml", '[modality.skeleton]\njoint = "xy"')
    dataset = folder.open()
    with pytest.raises(DataError, match=r"is not a skeleton: a joint has 3 numbers, not xy as set in dataset\.toml"):
        dataset.open(dataset.samples[0], "skeleton")


def test_what_a_joint_is_counts_for_skeletons_alone(folder: Folder) -> None:
    """So caches of other modalities are still found."""
    written(folder, ".npy", joints()[..., :2])
    before = folder.open()
    keys = [before.content_key(before.samples[0], m) for m in ("ir", "skeleton", "pose")]
    folder.text("dataset.toml", '[modality.skeleton]\njoint = "xy"\n[modality.ir]\njoint = "xy"')
    after = folder.open()
    assert after.content_key(after.samples[0], "ir") == keys[0]
    assert after.content_key(after.samples[0], "skeleton") != keys[1]
