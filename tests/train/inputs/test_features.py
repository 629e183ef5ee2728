"""What a teacher says of the student's frames: which of its frames is taken, which have none, and its components."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest

from kd_edge.data import Dataset, Sample
from kd_edge.errors import DataError, TrainingError
from kd_edge.train.inputs.draws import CropDraw
from kd_edge.train.inputs.embeddings import SeenClip, at_frames
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.targets import DenseTargets, FeatureSpace, Group, StudentClips, complete_features
from kd_edge.train.inputs.targets.features import Components, features_to_come
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.student_stages import FeatureTargets
from tests.runs import tiny_values

MS = 1_000_000
NAN = math.nan
SPACE = FeatureSpace("rgb", 2)
TRAIN = [Sample(name, "1", "", "1", 0) for name in ("a", "b")]


def stamps(*ms: int) -> np.ndarray:
    return np.array(ms, dtype=np.int64) * MS


def seen(*ms: int) -> SeenClip:
    """Of frame k the embedding (k, -k)."""
    each = np.arange(len(ms), dtype=np.float32)
    return SeenClip(stamps(*ms), np.stack([each, -each], axis=1))


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        ((0, 100, 200), (0, 40, 60, 100, 200), (0, 0, 1, 1, 2)),  # the nearest
        ((0, 50, 100), (0, 100, 200), (0, 1, 2)),  # at the same share of a clip half as long
        ((500, 600, 700), (0, 100, 200), (0, 1, 2)),  # wherever its clock begins
        (
            (0, 10, 20, 30, 90, 100),
            (0, 25, 45, 60, 75, 100),
            (0, 2, NAN, NAN, NAN, 5),
        ),  # frames were lost from 30 to 90
        ((0, 49), (0, 100), (NAN, NAN)),  # less than half of the clip
        ((7,), (0, 100), (NAN, NAN)),
        ((7,), (3,), (0,)),
    ],
)
def test_which_frame_of_the_teacher_is_taken(
    teacher: tuple[int, ...], student: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    found = at_frames(seen(*teacher), stamps(*student))
    np.testing.assert_array_equal(found, np.array([[k, -k] for k in expected], np.float32))
    some = np.array([len(student) - 1, 0])
    np.testing.assert_array_equal(at_frames(seen(*teacher), stamps(*student), some), found[some])


def test_components_of_literal_points() -> None:
    """About the mean (2, 1): the largest variance along (2, 1) / sqrt(5), then across it."""
    along, across = np.array([2.0, 1.0]), np.array([-1.0, 2.0])
    points = np.array([2.0, 1.0]) + np.array([3 * along, -3 * along, across, -across])
    lacking = np.array([[NAN, 0.0]])
    found = Components.fit([np.concatenate([points[:1], lacking]).astype(np.float32), points[1:].astype(np.float32)], 2)
    np.testing.assert_allclose(found.mean, [2, 1], atol=1e-6)
    np.testing.assert_allclose(found.basis, np.array([along, across]) / math.sqrt(5), atol=1e-6)
    expected = math.sqrt(5) * np.array([[3, 0], [-3, 0], [0, 1], [0, -1]])
    np.testing.assert_allclose(found.of(points.astype(np.float32)), expected, atol=1e-5)
    assert np.isnan(found.of(lacking.astype(np.float32))).all()


def test_components_need_more_frames() -> None:
    with pytest.raises(TrainingError, match="2 components of 2 frames"):
        Components.fit([np.eye(2, 3, dtype=np.float32)], 2)


def student(stamps_ns: dict[str, np.ndarray], labels: str = "") -> StudentClips:
    """Clips of the training side but v; of one class where labels do not say another of each."""
    classes = map(int, labels or "0" * len(stamps_ns))
    samples = tuple(Sample(name, "1", "", "1", k) for name, k in zip(stamps_ns, classes, strict=True))
    sides = tuple(s for s in samples if s.id != "v"), tuple(s for s in samples if s.id == "v")
    return StudentClips(cast(Dataset, None), samples, stamps_ns, sides, seed=0)


def late_targets(target: FeatureTargets, clips: dict[str, np.ndarray]) -> DenseTargets:
    (group,) = features_to_come(target, SPACE).groups
    speed = Group("skeleton velocities", group.count, 1, True, 1.0)
    size = group.count + 1
    values = {name: np.full((len(when), size), NAN, np.float32) for name, when in clips.items()}
    for each in values.values():
        each[:, -1] = np.arange(len(each))
    return DenseTargets([group, speed], values, {"skeleton": {}}, "")


def test_features_come_late_are_scaled_by_the_training_clips_and_what_is_absent_is_counted() -> None:
    """a: 0, 1, nothing, 3; mean 4 / 3 and spread sqrt(14 / 9) of both numbers; b has none, v is no training clip."""
    clips = {"a": stamps(0, 10, 50, 100), "b": stamps(0, 10), "v": stamps(0, 100)}
    targets = late_targets(FeatureTargets(), clips)
    targets.fit(TRAIN)  # without what is to come
    teacher = [("a", seen(0, 10, 20, 100)), ("b", "no rgb"), ("v", seen(0, 40, 100))]
    complete_features(targets, FeatureTargets(), SPACE, teacher, student(clips), TRAIN, None)
    spread = math.sqrt(14 / 9)
    found = targets.of("a", np.arange(4))[:, :2]
    expected = np.array([[-4 / 3, 4 / 3], [-1 / 3, 1 / 3], [NAN, NAN], [5 / 3, -5 / 3]]) / spread
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    later = targets.of("v", np.array([1]))[0, :2]
    np.testing.assert_allclose(later, np.array([2 / 3, -2 / 3]) / spread, rtol=1e-6)
    assert np.isnan(targets.of("b", np.arange(2))[:, :2]).all()
    assert targets.lacking == {"skeleton": {}, "rgb": {"b": "no rgb"}}
    assert targets.absent(TRAIN) == {"rgb features": 3 / 6, "skeleton velocities": 0}  # one frame of a, both of b
    assert "b" in targets  # it has the other target


@pytest.mark.parametrize(("how", "labels"), [("class", "0011"), ("all", "0123")])
def test_a_clip_is_given_the_features_of_another(how: Literal["class", "all"], labels: str) -> None:
    """a and b, c and d exchange, or all in a cycle; each at the same share of the clip's length."""
    clips = {name: stamps(0, 10, 20) for name in "abcd"} | {"a": stamps(0, 20)}
    train = [Sample(name, "1", "", "1", int(k)) for name, k in zip(clips, labels, strict=True)]
    target = FeatureTargets(shuffle=how)
    targets = late_targets(target, clips)
    teacher = [
        (name, SeenClip(when, np.full((len(when), 2), k, np.float32))) for k, (name, when) in enumerate(clips.items())
    ]
    complete_features(targets, target, SPACE, teacher, student(clips, labels), train, None)
    (name,) = (group.name for group in targets.groups if group.late)
    assert name == f"rgb features (shuffled: {how})"
    plain = late_targets(FeatureTargets(), clips)
    complete_features(plain, FeatureTargets(), SPACE, teacher, student(clips, labels), train, None)
    given, own = ([float(t.of(clip, np.array([0]))[0, 0]) for clip in "abcd"] for t in (targets, plain))
    order = [min(range(4), key=lambda k: abs(own[k] - value)) for value in given]  # the scales differ a little
    if how == "class":
        assert order == [1, 0, 3, 2]
    assert sorted(order) == [0, 1, 2, 3]
    assert all(k != giver for k, giver in enumerate(order))


def test_in_time_no_frame_keeps_its_features_and_who_is_alone_has_none() -> None:
    clips = {"a": stamps(0, 10, 20, 30), "b": stamps(0, 10)}
    reordered = FeatureTargets(shuffle="time")
    targets = late_targets(reordered, clips)
    teacher = [("a", seen(0, 10, 20, 30)), ("b", seen(0, 10))]
    complete_features(targets, reordered, SPACE, teacher, student(clips), TRAIN, None)
    found = targets.of("a", np.arange(4))[:, 0]
    assert all(np.argsort(found) != np.arange(4))
    alone = FeatureTargets(shuffle="class")
    targets = late_targets(alone, clips | {"v": stamps(0, 10)})
    three = student(clips | {"v": stamps(0, 10)}, "001")
    complete_features(targets, alone, SPACE, [*teacher, ("v", seen(0, 10))], three, TRAIN, None)
    assert targets.lacking["rgb"] == {"v": "alone in its class on its side"}


def test_no_training_clip_with_features_is_told() -> None:
    clips = {"a": stamps(0, 100), "v": stamps(0, 100)}
    targets = late_targets(FeatureTargets(), clips)
    teacher = [("a", seen(0, 10)), ("v", seen(0, 100))]
    with pytest.raises(DataError, match=r"dense target rgb \(the first: the teacher's rgb covers less than half"):
        complete_features(targets, FeatureTargets(), SPACE, teacher, student(clips), TRAIN, None)


def test_components_are_those_of_the_training_clips(tmp_path: Path) -> None:
    clips = {"a": stamps(0, 10, 20), "v": stamps(0, 10, 20)}
    target, kept = FeatureTargets(components=1), tmp_path / "teachers" / "c.safetensors"
    other = SeenClip(stamps(0, 10, 20), np.array([[9, 9], [50, 0], [0, 50]], np.float32))
    found = []
    for clip in (other, SeenClip(other.stamps_ns, other.values * 7)):
        targets = late_targets(target, clips)
        complete_features(targets, target, SPACE, [("a", seen(0, 10, 20)), ("v", clip)], student(clips), TRAIN, kept)
        found.append(targets.of("a", np.arange(3))[:, 0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], [-math.sqrt(1.5), 0, math.sqrt(1.5)], atol=1e-6)
    kept.write_bytes(b"{}")
    with pytest.raises(TrainingError, match=r"c\.safetensors is damaged"):
        complete_features(targets, target, SPACE, [("a", seen(0, 10, 20))], student(clips), TRAIN, kept)


class Numbered:
    """Knows the number of every frame, and of its clip."""

    def __init__(self, samples: tuple[Sample, ...]) -> None:
        self.numbers = {sample.id: k for k, sample in enumerate(samples)}

    def of(self, sample_id: str, frames: np.ndarray, crop: CropDraw | None = None) -> np.ndarray:
        assert crop is not None
        return np.stack([np.full(len(frames), self.numbers[sample_id]), frames], axis=1).astype(np.float32)


@pytest.mark.parametrize("windows", ["clip", "random", "loop", "mixed", "stream"])
def test_what_is_known_of_frames_is_of_those_that_are_shown(
    windows: str, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    values = tiny_values(teacher=None, losses=[], windows=windows, clip_seconds=2.0)
    values["student"]["preprocess"] |= {"resize_px": 32}
    values["student"]["augment"] = {"crop_scale": (1.0, 1.0), "shift": 0.0}
    material = gather_material(Recipe.model_validate(values))
    clips = material.student_clips(material.train)
    numbered = Numbered(material.train)
    changed = material._changing(["student"], material.windows(windows, 4), None, beside=[numbered])
    others = 0
    for position in range(len(material.train)):
        pictures, known = changed[position, 1][0]
        for picture, (clip, frame) in zip(pictures, known.astype(int), strict=True):
            np.testing.assert_array_equal(picture, clips.still(clip, np.array([frame]))[0])
            others += clip != position
    assert (others > 0) == (windows in ("mixed", "stream"))
