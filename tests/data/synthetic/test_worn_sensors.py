from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kd_edge.data.signals.load import load_signals
from kd_edge.data.synthetic import figure as f
from kd_edge.data.synthetic.actions import LABELS, Manner, perform
from kd_edge.data.synthetic.dataset import Synthetic, generator
from kd_edge.data.synthetic.figure import Array, Body, mirror_joints
from kd_edge.data.synthetic.worn_sensors import (
    GRAVITY,
    KERNEL,
    SENSORS,
    angular_velocity,
    measure,
    specific_force,
    with_faults,
)

WRIST, PHONE, GYRO = SENSORS["accelerometer"], SENSORS["accelerometer_phone"], SENSORS["gyroscope"]


def still(times_s: Array) -> Array:
    """A figure that does not move at all, its right forearm hanging straight down."""
    joints = np.zeros((20, 3))
    joints[[f.R_SHOULDER, f.R_ELBOW, f.R_WRIST]] = [[-0.2, 1.4, 0], [-0.2, 1.2, -0.1], [-0.2, 1.0, -0.1]]
    joints[[f.L_SHOULDER, f.L_ELBOW, f.L_WRIST]] = [[0.2, 1.4, 0], [0.2, 1.2, -0.1], [0.2, 1.2, 0.1]]
    joints[[f.R_HIP, f.L_HIP, f.R_KNEE]] = [[-0.1, 0.9, 0], [0.1, 0.9, 0], [-0.1, 0.45, 0.0]]
    return np.broadcast_to(joints, (len(times_s), 20, 3))


def turning(degrees_per_s: float, axis: Array, about: Array) -> Rotation:
    return Rotation.from_rotvec(axis * np.radians(degrees_per_s) * about[:, None])


def test_at_rest_there_is_one_g_upwards_and_no_rotation() -> None:
    values, stamps = measure(WRIST, still, 1.0)
    assert values.shape == (101, 3)
    assert stamps.tolist() == [10_000_000 * k for k in range(101)]
    # 1st axis: down the forearm; 2nd: upper arm x forearm = (0, -0.2, -0.1) x (0, -0.2, 0) = -x; 3rd: y x x = -z
    assert values == pytest.approx(np.tile([-1.0, 0.0, 0.0], (101, 1)), abs=1e-6)
    left, _ = measure(WRIST, still, 1.0, left_handed=True)  # forward: 2nd axis -x again, 3rd z x -x = -y
    assert left[0] == pytest.approx([0.0, 0.0, -1.0], abs=1e-6)
    phone, _ = measure(PHONE, still, 1.0)
    assert phone[50] == pytest.approx([-1.0, 0.0, 0.0], abs=1e-6)
    assert not measure(GYRO, still, 0.5)[0].any()


def test_a_watch_turned_about_the_forearm() -> None:
    """By 30 degrees from the 2nd axis towards the 3rd, which points down."""
    values, _ = measure(WRIST, still, 0.1, left_handed=True, roll=np.radians(30))
    assert values[0] == pytest.approx([0.0, -np.sin(np.radians(30)), -np.cos(np.radians(30))], abs=1e-6)


@pytest.mark.parametrize("degrees_per_s", [3.0, 90.0, -720.0])
def test_a_constant_rotation_gives_its_rate_and_its_pull(degrees_per_s: float) -> None:
    """The whole figure turns about the vertical through the origin: the wrist feels w^2 r inwards, and 1 g up."""

    def joints(times_s: Array) -> Array:
        turns = turning(degrees_per_s, np.array([0.0, 1.0, 0.0]), times_s)
        return np.einsum("tab,kb->tka", turns.as_matrix(), still(np.zeros(1))[0])

    rate, _ = measure(GYRO, joints, 1.0)
    assert rate == pytest.approx(np.tile([-degrees_per_s, 0, 0], (101, 1)), rel=1e-4, abs=1e-4)  # 1st axis: down
    force, _ = measure(WRIST, joints, 1.0)
    omega, wrist = np.radians(degrees_per_s), np.array([-0.2, 1.0, -0.1])
    inwards = -(omega**2) * wrist / GRAVITY  # in the frame that turns along: 2nd axis is -x, 3rd is -z
    assert force == pytest.approx(np.tile([-1.0, -inwards[0], -inwards[2]], (101, 1)), rel=2e-3, abs=2e-3)


def test_gravity_turns_with_the_sensor_and_free_fall_has_none() -> None:
    times = np.arange(200) / 400
    axes = Rotation.from_euler("z", 200 * times[:, None], degrees=True).as_matrix().transpose(0, 2, 1)
    held = specific_force(np.zeros((200, 3)), axes, 1 / 400)
    angle = np.radians(200 * times[1:-1])
    expected = GRAVITY * np.stack([np.sin(angle), np.cos(angle), 0 * angle], axis=1)
    assert held == pytest.approx(expected, abs=1e-9)
    falling = np.stack([3 * times, 2 - GRAVITY * times**2 / 2, 0 * times], axis=1)
    assert specific_force(falling, axes, 1 / 400) == pytest.approx(np.zeros((198, 3)), abs=1e-6)


def test_angular_velocity_is_that_of_scipys_rotations() -> None:
    """On the axes that turn, by small steps of random rotation; fast ones and none at all too."""
    rng = np.random.default_rng(1)
    for scale in (0.0, 1e-7, 1.0, 200.0):
        rates = np.repeat(rng.normal(0, 1, (20, 3)) * scale, 2, axis=0)  # rad/s, two equal steps each
        turn, axes = Rotation.identity(), []
        for rate in rates:
            axes.append(turn.as_matrix().T)
            turn = turn * Rotation.from_rotvec(rate / 400)
        axes.append(turn.as_matrix().T)
        found = angular_velocity(np.stack(axes), 1 / 400)
        assert found[::2] == pytest.approx(rates[::2], rel=1e-6, abs=max(1e-10, 1e-6 * scale))


def test_what_is_too_fast_for_the_rate_does_not_fold_back() -> None:
    """Shaken at 95 Hz a signal at 100 Hz would show 5 Hz; of the shaking's force of 36 g less than 3 % is left."""

    def joints(times_s: Array) -> Array:
        shaken = still(times_s).copy()
        shaken[..., 1] += 0.001 * np.sin(2 * np.pi * 95 * times_s)[:, None]
        return shaken

    force, _ = measure(WRIST, joints, 1.0)
    assert np.abs(force[:, 0] + 1).max() < 0.03 * 0.001 * (2 * np.pi * 95) ** 2 / GRAVITY
    assert KERNEL.sum() == pytest.approx(1)


@pytest.mark.parametrize("action", LABELS)
def test_the_integral_of_the_gyroscope_is_the_turned_angle(action: str) -> None:
    """Put together step by step, the rotation from the first to the last moment is that of the forearm.

    At a quarter of the usual speed: faster turns about changing axes are more than the low-pass leaves whole.
    """
    rng = generator("test", action)
    body, manner = Body.draw(rng), Manner.draw(rng, action)

    def joints(times_s: Array) -> Array:
        return perform(action, body, manner, times_s / 4).joints

    rates, stamps = measure(GYRO, joints, 4.0, left_handed=manner.left_handed)
    turn = Rotation.identity()
    for before, after in pairwise(rates):
        turn = turn * Rotation.from_rotvec(np.radians(before.astype(np.float64) + after) / 200)
    ends = joints(stamps[[0, -1]] / 1e9)
    elbow, wrist = (f.L_ELBOW, f.L_WRIST) if manner.left_handed else (f.R_ELBOW, f.R_WRIST)
    first, last = ends[:, wrist] - ends[:, elbow]
    shoulder = f.L_SHOULDER if manner.left_handed else f.R_SHOULDER
    across = np.cross(ends[0, elbow] - ends[0, shoulder], first)
    axes = np.stack([v / np.linalg.norm(v) for v in (first, across, np.cross(first, across))], axis=1)  # columns
    found = axes @ turn.as_matrix()[:, 0]  # where the 1st axis, the forearm, is at the end
    error = np.degrees(np.arccos(np.clip(found @ last / np.linalg.norm(last), -1, 1)))
    assert error < 1.0


def test_the_left_hand_mirrors_the_right() -> None:
    """Along the forearm and square to it in the arm's plane both feel the same; across that plane the opposite."""
    rng = generator("test", "mirror")
    body, manner = Body.draw(rng), Manner.draw(rng, "drink")

    def right(times_s: Array) -> Array:
        joints = perform("drink", body, manner, times_s).joints
        return mirror_joints(joints) if manner.left_handed else joints

    def left(times_s: Array) -> Array:
        return mirror_joints(right(times_s))

    one, other = measure(WRIST, right, 1.5)[0], measure(WRIST, left, 1.5, left_handed=True)[0]
    assert other == pytest.approx(one * [1, -1, 1], abs=1e-4)
    one, other = measure(GYRO, right, 1.5)[0], measure(GYRO, left, 1.5, left_handed=True)[0]
    assert other == pytest.approx(one * [-1, 1, -1], abs=1e-2)
    assert np.abs(one).max() > 20


def test_faults_are_an_offset_noise_and_the_range() -> None:
    ideal = np.tile(np.float32([0.5, 7.99, -30.0]), (4000, 1))
    values = with_faults(ideal, WRIST, np.random.default_rng(3))
    assert values.dtype == np.float32
    assert values.min() == -8.0
    assert values.max() <= 8.0
    assert values[:, 0].std() == pytest.approx(0.012, rel=0.1)
    assert abs(values[:, 0].mean() - 0.5) < 0.08
    assert values[:, 0].mean() != pytest.approx(0.5, abs=1e-3)
    assert (values[:, 2] == -8).all()


@pytest.mark.slow
def test_the_signals_tell_the_actions_apart(tmp_path: Path) -> None:
    """The nearest training clip names three of four test clips of an unseen person; one of ten by chance."""
    dataset = Synthetic(clips_per_class=8, subjects=4)
    signals = load_signals(dataset, dataset.samples, ["accelerometer", "gyroscope"], root=tmp_path)
    split = dataset.split("subjects")

    def points(sample_id: str) -> Array:
        signal = signals.signal(sample_id, "accelerometer")
        assert signal is not None
        found = signals.points(sample_id, 0, int(signal.stamps_ns[-1]), 24) / np.array([2, 300])[:, None, None]
        return found.astype(np.float64).ravel()

    train, test = (np.stack([points(s.id) for s in side]) for side in (split.train, split.test))
    nearest = np.square(test[:, None] - train).sum(-1).argmin(1)
    right = [split.train[i].label == s.label for i, s in zip(nearest, split.test, strict=True)]
    assert np.mean(right) > 0.7
