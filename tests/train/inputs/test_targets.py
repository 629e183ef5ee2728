"""Dense targets against numbers worked out by hand: where joints are, how they move, what a crop makes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data import Sample
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.errors import ConfigError, DataError
from kd_edge.train.dense import lacking_note
from kd_edge.train.inputs.draws import CropDraw
from kd_edge.train.inputs.targets import DenseTargets, Group, check_targets, gather_targets, joint_targets
from kd_edge.train.inputs.targets.base import StudentClips
from kd_edge.train.inputs.targets.joints import joints_of
from kd_edge.train.recipe.student_stages import JointTargets, SignalTargets
from kd_edge.types import Clip
from tests.data.conftest import write_sample

MS = 1_000_000


@pytest.fixture
def small_utd(tmp_path: Path) -> Path:
    for action, subject in ((1, 1), (1, 2), (2, 1), (2, 2)):
        write_sample(tmp_path, action, subject, 1)
    return tmp_path


CROSS = np.array([[0, 1, 2], [0, -1, 2], [1, 0, 2], [-1, 0, 2], [0, 0, 2]], np.float32)  # about (0, 0, 2)


def clip_of(frames: np.ndarray, period_ms: int = 100) -> Clip:
    return Clip(frames.astype(np.float32), np.arange(len(frames), dtype=np.int64) * period_ms * MS)


def test_joints_are_about_their_median_in_units_of_the_body() -> None:
    """Root mean square distance of the five joints: sqrt(4 / 5)."""
    steps = np.array([[0.3 * k, 0.1, k] for k in range(4)], np.float32)
    clip = clip_of(CROSS + steps[:, None])  # it walks, and is as large everywhere
    found = joint_targets(clip, clip.stamps_ns, JointTargets(velocity_ms=None))
    expected = (CROSS - [0, 0, 2]).ravel() / math.sqrt(0.8)
    assert found.shape == (4, 15)
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), atol=1e-6)
    twice = clip_of(2 * clip.frames)
    np.testing.assert_allclose(joint_targets(twice, clip.stamps_ns, JointTargets(velocity_ms=None)), found, atol=1e-6)


def test_velocities_are_changes_over_their_time_and_begin_with_none() -> None:
    frames = np.stack([CROSS] * 5)
    frames[:, 2, 0] += np.arange(5) * 0.2  # one hand moves right, 0.2 a frame
    clip = clip_of(frames)
    found = joint_targets(clip, clip.stamps_ns, JointTargets(velocity_ms=200.0))
    size = float(np.median([math.sqrt((3 + (1 + 0.2 * k) ** 2) / 5) for k in range(5)]))
    moving = found[:, 15 + 2 * 3] * size
    np.testing.assert_allclose(moving, [0, 0.2, 0.4, 0.4, 0.4], atol=1e-6)
    others = np.delete(found[:, 15:], 2 * 3, axis=1)
    np.testing.assert_allclose(others, 0, atol=1e-6)


def test_a_skeleton_that_leads_is_moved_and_read_between_its_frames() -> None:
    frames = np.stack([CROSS] * 6)
    frames[:, 2, 0] += np.arange(6)
    clip = clip_of(frames)
    later = joint_targets(clip, clip.stamps_ns[2:], JointTargets(velocity_ms=None, lag_ms=150.0))
    now = joint_targets(clip, clip.stamps_ns, JointTargets(velocity_ms=None))
    np.testing.assert_allclose(later[:, 6], (now[:4, 6] + now[1:5, 6]) / 2, atol=1e-6)  # one and a half frames earlier


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: Clip(c.frames[:2], c.stamps_ns[:2]), "covers less than half of its clip"),
        (lambda c: Clip(np.where(c.frames == 2, np.nan, c.frames), c.stamps_ns), r"\(0 of 10\)"),  # none has a z
        (lambda c: Clip(c.frames, c.stamps_ns + 5000 * MS), r"\(0 of 10\)"),  # it begins when the clip has ended
        (lambda c: Clip(c.frames, c.stamps_ns * 3), "10 frames over 2.7 s with a clip of 0.9 s"),  # a third of its rate
    ],
)
def test_skeletons_that_do_not_fit_their_clip(change: object, message: str) -> None:
    clip = clip_of(np.stack([CROSS] * 10))
    with pytest.raises(DataError, match=message):
        joint_targets(change(clip), clip.stamps_ns, JointTargets())  # type: ignore[operator]


def test_joints_that_were_not_seen_are_left_out_one_by_one() -> None:
    """The fifth joint lies on the median, so without it the others' median is (0, 0, 2) all the same; their root mean
    square distance is 1 then, sqrt(0.8) with it: over frames 1, sqrt(0.8), sqrt(0.8) the median is sqrt(0.8)."""
    frames = np.stack([CROSS] * 3)
    frames[0, 4] = np.nan
    clip = clip_of(frames)
    found = joint_targets(clip, clip.stamps_ns, JointTargets(velocity_ms=100.0)).reshape(3, 2, 5, 3)
    assert np.isnan(found[0, :, 4]).all()
    assert np.isnan(found[1, 1, 4]).all()  # nobody knows how it came there
    assert np.isfinite(found[1, 0]).all()
    np.testing.assert_allclose(found[:, 0, :4], np.tile((CROSS - [0, 0, 2])[:4] / math.sqrt(0.8), (3, 1, 1)), atol=1e-6)
    between = joint_targets(clip, clip.stamps_ns[:2] + 50 * MS, JointTargets(velocity_ms=None)).reshape(2, 5, 3)
    assert np.isnan(between[0, 4]).all()  # between a frame with it and one without
    assert np.isfinite(between[1]).all()


def test_a_frame_with_hardly_a_joint_has_no_middle() -> None:
    frames = np.stack([CROSS] * 4)
    frames[2, :3] = np.nan  # two of five are left
    clip = clip_of(frames)
    found = joint_targets(clip, clip.stamps_ns, JointTargets(velocity_ms=None))
    assert np.isnan(found).all(axis=1).tolist() == [False, False, True, False]


def test_nothing_is_known_beyond_the_ends_of_a_skeleton() -> None:
    """It lasts from 200 to 700 ms and is held for 100 ms at either end; a clip has frames from 0 to 900."""
    clip = clip_of(np.stack([CROSS] * 6))
    when = np.arange(10, dtype=np.int64) * 100 * MS
    found = joint_targets(Clip(clip.frames, clip.stamps_ns + 200 * MS), when, JointTargets(velocity_ms=150.0))
    assert np.isfinite(found[:, :15]).all(axis=1).tolist() == [False, *[True] * 8, False]
    # the velocity at 200 ms would need 50 ms, that at 300 ms needs 150
    assert np.isfinite(found[:, 15:]).all(axis=1).tolist() == [False, False, False, *[True] * 6, False]


def test_numbers_that_are_lacking_are_counted_and_scale_nothing() -> None:
    """Six numbers, of which one is missing; those of the first column are 0 and 2, of the second 5."""
    values = {"a": np.array([[0, 5, 1], [2, np.nan, 1]], np.float32)}
    found = targets(values)
    samples = [Sample("a", "1", "", "1", 0)]
    found.fit(samples)
    assert found.absent(samples) == {"skeleton positions": pytest.approx(1 / 6)}
    spread = math.sqrt((1 + 1 + 0 + 0 + 0) / 5)
    np.testing.assert_allclose(
        found.of("a", np.array([0, 1])), np.array([[-1, 0, 0], [1, np.nan, 0]]) / spread, rtol=1e-6
    )
    assert found.absent([Sample("b", "1", "", "1", 0)]) == {"skeleton positions": 1.0}


def targets(values: dict[str, np.ndarray], *, turns: bool = True) -> DenseTargets:
    count = next(iter(values.values())).shape[1]
    return DenseTargets([Group("skeleton positions", 0, count, turns, 1.0)], values, {}, "")


@pytest.mark.parametrize(("value", "off"), [(0.0, 0.0), (25.0, 0.0), (1000.0, 1e-4)])
def test_what_never_changes_teaches_nothing(value: float, off: float) -> None:
    """However large it is, and however it is rounded."""
    still = np.full((6, 2), value, np.float32)
    still[3] += off
    found = DenseTargets([Group("rgb features", 0, 2, False, 1.0)], {"a": still}, {}, "")
    with pytest.raises(DataError, match="rgb features is the same in every frame of the training clips"):
        found.fit([Sample("a", "1", "", "1", 0)])


def test_targets_are_scaled_by_the_training_clips_alone() -> None:
    """Means 1 and 10; distances from them 1, 1, 2, 2: root mean square sqrt(2.5)."""
    values = {"a": np.array([[0, 8, 0], [2, 12, 0]], np.float32), "b": np.full((1, 3), 50, np.float32)}
    found = targets(values, turns=False)
    found.fit([Sample("a", "1", "", "1", 0)])
    spread = math.sqrt((1 + 1 + 4 + 4 + 0 + 0) / 6)
    np.testing.assert_allclose(found.of("a", np.array([1, 0])), np.array([[1, 2, 0], [-1, -2, 0]]) / spread, rtol=1e-6)
    np.testing.assert_allclose(found.of("b", np.array([0])), np.array([[49, 40, 50]]) / spread, rtol=1e-6)


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        (CropDraw(1, 1, 0, 0, False), [[1, 0, 5], [0, 1, 5]]),
        (CropDraw(0.5, 0.5, 0.1, 0.2, False), [[1, 0, 5], [0, 1, 5]]),  # bodies are scaled: no zoom
        (CropDraw(1, 1, 0, 0, False, 90.0), [[0, 1, 5], [-1, 0, 5]]),  # turned clockwise, what it shows turns left
        (CropDraw(4, 1, 0, 0, False), [[2, 0, 5], [0, 0.5, 5]]),  # four times as tall: what it shows is flat
        (CropDraw(1, 1, 0, 0, True), [[-1, 0, 5], [0, 1, 5]]),
    ],
)
def test_a_crop_turns_and_stretches_what_is_seen(crop: CropDraw, expected: list[list[float]]) -> None:
    """A vector to the right and one upwards, both 5 away."""
    found = targets({"a": np.array([[1, 0, 5], [0, 1, 5]], np.float32)})
    np.testing.assert_allclose(found.of("a", np.array([0, 1]), crop), expected, atol=1e-6)
    still = targets({"a": np.array([[1, 0, 5], [0, 1, 5]], np.float32)}, turns=False)
    np.testing.assert_allclose(still.of("a", np.array([0, 1]), crop), [[1, 0, 5], [0, 1, 5]])


def test_targets_of_real_kinds_side_by_side_and_what_is_lacking(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    samples = dataset.samples
    stamps = {s.id: dataset.open(s, "depth").stamps_ns for s in samples}
    dataset.path(samples[0], "skeleton").unlink()
    dataset = UtdMhad(small_utd)
    wanted = (JointTargets(), SignalTargets(sensors=dataset.sensors[:2], weight=3.0))
    found = gather_targets(wanted, dataset, stamps, samples)
    assert found.size == 60 + 60 + 3 + 3
    assert found.weights.tolist() == [1.0] * 120 + [3.0] * 6
    assert list(found.lacking["skeleton"]) == [samples[0].id]
    found.fit(samples)
    values = found.of(samples[0].id, np.arange(3))
    assert np.isnan(values[:, :120]).all()
    assert found.of(samples[1].id, np.arange(3)).shape == (3, 126)
    assert np.isfinite(found.of(samples[1].id, np.arange(3))).all()
    other = gather_targets(wanted, dataset, stamps, samples[1:])
    assert other.fingerprint != found.fingerprint
    assert samples[1].id in found
    assert "nobody" not in found


def test_one_odd_skeleton_does_not_decide_for_all(small_utd: Path) -> None:
    """Though it is the first."""
    dataset = UtdMhad(small_utd)
    first, *others = dataset.samples
    stamps = {s.id: dataset.open(s, "depth").stamps_ns for s in dataset.samples}

    class Odd:
        def open(self, sample: Sample, modality: str) -> Clip:
            clip = dataset.open(sample, modality)
            return replace(clip, frames=clip.frames[:, :15]) if sample == first else clip

    found = joints_of(JointTargets(), StudentClips(Odd(), dataset.samples, stamps))  # type: ignore[arg-type]
    assert found.values.keys() == {s.id for s in others}
    assert found.lacking == {"skeleton": {first.id: "15 joints where most have 20"}}
    assert [group.count for group in found.groups] == [60, 60]
    targets = DenseTargets(found.groups, {}, found.lacking, "")
    noted = f"1 of {len(dataset.samples)} clips lack skeleton ({first.id}: 15 joints where most have 20)"
    assert lacking_note(targets, dataset.samples) == noted
    assert lacking_note(targets, others) == ""


def test_a_data_set_without_the_target_is_told(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    with pytest.raises(ConfigError, match=r"dense target 'bones' with utd.* one of depth, .*skeleton"):
        check_targets([JointTargets(modality="bones")], dataset)
    stamps = {s.id: dataset.open(s, "depth").stamps_ns for s in dataset.samples}
    with pytest.raises(DataError, match=r"target depth \(the first: .* is uint16.* positions of joints"):
        gather_targets([JointTargets(modality="depth")], dataset, stamps, dataset.samples)
