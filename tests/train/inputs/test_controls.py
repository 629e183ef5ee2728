"""Controls of dense targets: whose numbers a clip is given, what random motion keeps, what components are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge.data import Sample
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.errors import ConfigError, DataError, TrainingError
from kd_edge.train.inputs.targets import gather_targets
from kd_edge.train.inputs.targets.base import Found, Group, StudentClips
from kd_edge.train.inputs.targets.pixels import fit_components, pixels_of, small
from kd_edge.train.inputs.targets.shuffle import exchanged, fitted, shuffled
from kd_edge.train.inputs.targets.surrogates import random_like, surrogate
from kd_edge.train.recipe.student_stages import JointTargets, PixelTargets, RandomTargets, SignalTargets
from tests.data.conftest import write_sample

MS = 1_000_000


def sample(name: str, label: int) -> Sample:
    return Sample(name, "1", "", "1", label)


TRAIN = [sample(name, label) for name, label in (("a1", 0), ("a2", 0), ("a3", 0), ("b1", 1), ("b2", 1), ("c1", 2))]
TEST = [sample(name, label) for name, label in (("a4", 0), ("a5", 0), ("b3", 1), ("b4", 1))]
GROUP = Group("x positions", 0, 2, True, 3.0)


def clips(seed: int = 0, sides: Sequence[Sequence[Sample]] = (TRAIN, (), TEST), **more: object) -> StudentClips:
    every = tuple(s for side in sides for s in side)
    stamps = {s.id: np.arange(5, dtype=np.int64) * 100 * MS for s in every}
    return StudentClips(None, every, stamps, tuple(map(tuple, sides)), seed, **more)  # type: ignore[arg-type]


def numbered() -> Found:
    """Each clip has its own number, and counts its frames."""
    values = {s.id: np.stack([np.full(5, k), np.arange(5)], axis=1).astype(np.float32) for k, s in enumerate(TRAIN)}
    values |= {s.id: np.full((5, 2), 100 + k, np.float32) for k, s in enumerate(TEST)}
    return Found((GROUP,), values, {"x": {"lost": "no file"}})


@pytest.mark.parametrize("seed", range(5))
def test_a_class_exchanges_its_targets_and_no_clip_keeps_its_own(seed: int) -> None:
    givers = exchanged([s.id for s in TRAIN + TEST], clips(seed), by_class=True, purpose="class")
    assert {giver for name, giver in givers.items() if name in ("a1", "a2", "a3")} == {"a1", "a2", "a3"}
    assert (givers["b1"], givers["b2"], givers["a4"], givers["b4"]) == ("b2", "b1", "a5", "b3")
    assert givers["c1"] == "c1", "alone in its class"
    assert [name for name, giver in givers.items() if name == giver] == ["c1"]


@pytest.mark.parametrize("seed", range(5))
def test_any_clip_may_give_but_only_on_its_own_side(seed: int) -> None:
    givers = exchanged([s.id for s in TRAIN + TEST], clips(seed), by_class=False, purpose="all")
    for side in (TRAIN, TEST):
        names = {s.id for s in side}
        assert {givers[name] for name in names} == names
        assert all(givers[name] != name for name in names)


def test_exchanges_follow_the_seed_and_the_purpose() -> None:
    names = [s.id for s in TRAIN]
    drawn = {
        (seed, purpose): tuple(sorted(exchanged(names, clips(seed), by_class=False, purpose=purpose).items()))
        for seed in range(4)
        for purpose in ("all", "random")
    }
    assert drawn[0, "all"] == tuple(sorted(exchanged(names[::-1], clips(0), by_class=False, purpose="all").items()))
    assert len(set(drawn.values())) > 5


def test_what_a_clip_lacks_it_is_not_given_and_does_not_give() -> None:
    found = numbered()
    there = Found(found.groups, {k: v for k, v in found.values.items() if k not in ("a1", "b1")}, found.lacking)
    given = shuffled(there, "class", clips())
    assert given.values.keys() == there.values.keys() - {"b2", "c1"}
    assert (given.values["a2"][0, 0], given.values["a3"][0, 0]) == (2, 1)
    why = "alone in its class on its side"
    assert given.lacking == {"x": {"lost": "no file", "b2": why, "c1": why}}


def test_who_is_alone_lacks_the_target() -> None:
    """Its own would be no control, and would be explained as if nothing were shuffled."""
    given = shuffled(numbered(), "class", clips())
    assert given.values.keys() == numbered().values.keys() - {"c1"}
    assert given.lacking == {"x": {"lost": "no file", "c1": "alone in its class on its side"}}
    single = Found((GROUP,), {"a1": np.ones((5, 2), np.float32)}, {})
    given = shuffled(single, "all", clips())
    assert (given.values, given.lacking) == ({}, {"x": {"a1": "alone on its side"}})


def test_another_clips_numbers_are_taken_at_the_same_share_of_its_length() -> None:
    counted = np.arange(5, dtype=np.float32)[:, None]
    assert fitted(counted, 3).ravel().tolist() == [0, 2, 4]
    assert fitted(counted, 9).ravel().tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4]  # halves to even
    assert fitted(counted[:1], 3).ravel().tolist() == [0, 0, 0]
    assert fitted(counted, 1).ravel().tolist() == [0]


def test_time_reorders_a_clips_own_frames() -> None:
    found, given = numbered(), shuffled(numbered(), "time", clips())
    orders = {s.id: tuple(given.values[s.id][:, 1].astype(int)) for s in TRAIN}
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders.values())
    assert len(set(orders.values())) > 3, "each clip its own order"
    assert not any(order[k] == k for order in orders.values() for k in range(5)), "no frame keeps its own"
    assert all((given.values[s.id][:, 0] == found.values[s.id][:, 0]).all() for s in TRAIN)
    again, other = (shuffled(numbered(), "time", clips(seed)) for seed in (0, 1))
    assert all((again.values[k] == given.values[k]).all() for k in orders)
    assert any((other.values[k] != given.values[k]).any() for k in orders)
    assert given.groups == (Group("x positions (shuffled: time)", 0, 2, True, 3.0),)


def test_two_frames_change_places_and_a_single_one_has_nowhere_to_go() -> None:
    two = np.array([[1], [2]], np.float32)
    given = shuffled(Found((GROUP,), {"a1": two, "a2": two[:1]}, {}), "time", clips())
    assert given.values["a1"].tolist() == [[2], [1]]
    assert given.values["a2"].tolist() == [[1]]


@pytest.mark.parametrize("frames", [8, 9])
def test_random_motion_keeps_means_spectra_and_how_numbers_go_together(frames: int) -> None:
    values = np.random.default_rng(1).normal(size=(frames, 3)).cumsum(axis=0).astype(np.float32)
    moved = surrogate(values, np.random.default_rng(0))
    assert moved.dtype == np.float32
    assert np.abs(moved - values).max() > 0.5
    np.testing.assert_allclose(moved.mean(axis=0), values.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(values.T), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.fft.rfft(moved, axis=0)), np.abs(np.fft.rfft(values, axis=0)), atol=1e-5)


class Quarters:
    """A generator whose every angle is a quarter turn."""

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        return np.full(count, (high - low) / 4)


def test_a_quarter_turn_makes_a_cosine_a_sine() -> None:
    """cos(x + 90 degrees) = -sin(x); the mean stays, and of 4 frames the highest frequency does."""
    turn = 2 * np.pi * np.arange(4) / 4
    series = np.stack([3 + np.cos(turn), 7 + np.sin(turn), (-1.0) ** np.arange(4)], axis=1).astype(np.float32)
    expected = np.stack([3 - np.sin(turn), 7 + np.cos(turn), (-1.0) ** np.arange(4)], axis=1)
    np.testing.assert_allclose(surrogate(series, Quarters()), expected, atol=1e-6)  # type: ignore[arg-type]


def test_random_motion_leaves_out_what_was_not_there() -> None:
    values = np.array([[0, 1, np.nan], [2, np.nan, np.nan], [4, 3, np.nan]], np.float32)
    moved = surrogate(values, np.random.default_rng(0))
    assert np.isnan(moved).tolist() == np.isnan(values).tolist()
    one = np.array([[5.0, 6.0]], np.float32)
    np.testing.assert_allclose(surrogate(one, np.random.default_rng(0)), one)


def test_random_targets_are_of_another_clip_of_any_class_and_do_not_turn_with_the_crop() -> None:
    target = RandomTargets(of=JointTargets(), weight=2.0)
    found = random_like(numbered(), target, clips())
    assert found.groups == (Group("x positions (random)", 0, 2, False, 6.0),)
    for k, each in enumerate(TRAIN):
        assert abs(found.values[each.id][0, 0] - k) > 0.5, "the first number is the giver's, which has no spectrum"
        np.testing.assert_allclose(found.values[each.id][:, 1].mean(), 2, atol=1e-5)
        assert np.abs(found.values[each.id][:, 1] - np.arange(5)).max() > 0.1
    again = random_like(numbered(), target, clips())
    assert all((again.values[k] == found.values[k]).all() for k in found.values)


def test_components_are_those_of_a_cloud_worked_out_by_hand() -> None:
    """About (1, 2, 3): spread 4 along (3, 4, 0) / 5, 2 along (-4, 3, 0) / 5, none along z."""
    along, across = np.array([0.6, 0.8, 0]), np.array([-0.8, 0.6, 0])
    cloud = np.array([1, 2, 3]) + np.array([4 * along, -4 * along, 2 * across, -2 * across])
    found = fit_components(cloud.astype(np.float32), 2)
    np.testing.assert_allclose(found.mean, [1, 2, 3], atol=1e-6)
    np.testing.assert_allclose(found.axes, [[0.6, 0.8, 0], [0.8, -0.6, 0]], atol=1e-6)  # the largest is positive
    seen = np.array([[1.6, 2.8, 3], [0.2, 2.6, 9]], np.float32)
    np.testing.assert_allclose(found.of(seen), [[1, 0], [0, -1]], atol=1e-6)


def test_more_components_than_numbers_and_too_large_pictures_are_told() -> None:
    with pytest.raises(ConfigError, match="5 principal components of pictures of 3 numbers"):
        fit_components(np.zeros((4, 3), np.float32), 5)
    with pytest.raises(ConfigError, match=r"pictures of 4097 numbers\. Expected pictures of 1 to 4096"):
        fit_components(np.zeros((1, 4097), np.float32), 1)


def test_fewer_frames_than_components_have_some_without_spread() -> None:
    found = fit_components(np.array([[0, 1, 0], [0, 3, 0]], np.float32), 3)
    np.testing.assert_allclose(found.axes @ found.axes.T, torch.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.abs(found.of(np.array([[0, 1, 0], [0, 3, 0]], np.float32)))[:, 0], [1, 1], atol=1e-6)


def test_pictures_are_scaled_down_by_averages() -> None:
    picture = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    assert small(picture, 2).tolist() == [[2.5, 4.5, 10.5, 12.5, 18.5, 20.5, 26.5, 28.5]]
    assert small(picture, 4).tolist() == [list(range(32))]
    assert small(picture, 9).tolist() == [list(range(32))]


def bright(each: Sample) -> np.ndarray:
    """Five frames of one plane, as bright as their number; those of the test side are a thousand times brighter."""
    shown = np.zeros((5, 1, 2, 2), np.float32)
    shown[:, 0, 0, 0] = np.arange(5) * (1000 if each in TEST else 1)
    return shown


@pytest.mark.parametrize(
    ("ahead_ms", "frames"),
    [(0, [0, 1, 2, 3, 4]), (200, [2, 3, 4, 4, 4]), (-100, [0, 0, 1, 2, 3]), (149, [1, 2, 3, 4, 4])],
)
def test_pixels_are_of_the_frame_ahead_and_the_ends_are_held(ahead_ms: float, frames: list[int]) -> None:
    target = PixelTargets(components=2, side_px=2, ahead_ms=ahead_ms)
    found = pixels_of(target, clips(pictures=bright))
    np.testing.assert_allclose(found.values["a1"][:, 0], np.array(frames) - 2.0, atol=1e-6)  # about the mean of 0 to 4
    assert found.groups == (Group("pixels", 0, 2, False, 1.0),)
    np.testing.assert_allclose(
        found.values["a4"][:, 0], np.array(frames) * 1000.0 - 2, rtol=1e-6
    )  # fitted on training clips alone: the mean is still 2


def test_at_most_so_many_frames_are_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 frames, at most 8: every fourth, counted through all clips."""
    monkeypatch.setattr("kd_edge.train.inputs.targets.pixels.FITTED_FRAMES", 8)
    seen = []

    def fit(frames: np.ndarray, count: int) -> object:
        seen.append(frames[:, 0].tolist())
        return fit_components(frames, count)

    monkeypatch.setattr("kd_edge.train.inputs.targets.pixels.fit_components", fit)
    pixels_of(PixelTargets(components=1, side_px=2), clips(pictures=bright))
    assert seen == [[0, 4, 3, 2, 1, 0, 4, 3]]


def test_pixels_without_clips_or_pictures() -> None:
    with pytest.raises(DataError, match="no training clip has the dense target pixels"):
        pixels_of(PixelTargets(), clips(sides=((), (), TEST), pictures=bright))
    with pytest.raises(TrainingError, match="without the student's pictures"):
        pixels_of(PixelTargets(), clips())


def test_any_target_may_be_shuffled_and_stands_beside_others(tmp_path: Path) -> None:
    """Real files: the shuffled joints of a clip are its partner's, scaled alike; the signals beside them its own."""
    for action, subject, trial in ((1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (2, 1, 2), (2, 2, 1)):
        write_sample(tmp_path, action, subject, trial, frames=9)
    dataset = UtdMhad(tmp_path)
    stamps = {s.id: dataset.open(s, "depth").stamps_ns for s in dataset.samples}
    train = [s for s in dataset.samples if s.subject == "1"]
    signals = SignalTargets(sensors=("gyroscope",))

    def of(*targets: object) -> dict[str, np.ndarray]:
        found = gather_targets(targets, dataset, stamps, dataset.samples, sides=(train,), seed=3)  # type: ignore[arg-type]
        found.fit(train)
        return {s.id: found.of(s.id, np.arange(9)) for s in dataset.samples}

    own = of(JointTargets(), signals)
    given = of(JointTargets(shuffle="class"), signals)
    pairs = {"a1_s1_t1": "a1_s1_t2", "a1_s1_t2": "a1_s1_t1", "a2_s1_t1": "a2_s1_t2", "a2_s1_t2": "a2_s1_t1"}
    assert np.isnan(given["a1_s2_t1"][:, :120]).all(), "alone in its class outside the training side"
    for name, giver in pairs.items():
        np.testing.assert_allclose(given[name][:, :120], own[giver][:, :120], atol=1e-5)
        np.testing.assert_allclose(given[name][:, 120:], own[name][:, 120:], atol=1e-5)
    noise = of(RandomTargets(of=JointTargets()))["a1_s1_t1"]
    assert noise.shape == (9, 120)
    assert min(np.abs(noise - each[:, :120]).max() for each in own.values()) > 0.1
    assert math.isfinite(noise.sum())
