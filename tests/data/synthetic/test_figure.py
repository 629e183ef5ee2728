from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kd_edge.data.synthetic import figure as f
from kd_edge.data.synthetic.actions import ACTIONS, LABELS, SEAT_HEIGHT, Manner, join, perform
from kd_edge.data.synthetic.dataset import generator
from kd_edge.data.synthetic.figure import Body, ease

TIMES = np.arange(0, 4, 1 / 30)
THROW = 21.1
"""Metres a second: a ball leaves the hands of elite handball players no faster (11 men, van den Tillaar and Cabri,
"Gender differences in the kinematics and ball velocity of overarm throwing in elite team handball players", 2012)."""


def performed(action: str, seed: int = 0, *, left_handed: bool = False) -> tuple[np.ndarray, np.ndarray, Body]:
    """Joints (T, 20, 3) and progress (T,) of a steady performance."""
    rng = generator("test", seed, action)
    body = Body.draw(rng)
    manner = Manner(2.4, 0.2, left_handed, 1.0, 0.5, np.zeros(12), np.zeros((2, 3)))
    return perform(action, body, manner, TIMES).joints, np.clip((TIMES - 0.2) / 2.4, 0, 1), body


def test_minimum_jerk_known_values() -> None:
    # 10 s^3 - 15 s^4 + 6 s^5 at s = 1/4, 1/2, 3/4: 53/512, 1/2, 459/512
    u = np.array([-1.0, 0.25, 0.5, 0.75, 1.0, 9.0])
    assert ease(u, [0, 1], [0.0, 1.0]).tolist() == pytest.approx([0, 53 / 512, 0.5, 459 / 512, 1, 1])
    assert ease(np.array([1.5]), [0, 1, 2], [[0, 0], [4, 8], [2, 0]]).tolist() == [[3.0, 4.0]]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(action=st.sampled_from(LABELS), seed=st.integers(0, 10_000))
@example(action="throw", seed=8237)  # the fastest of all the throws
@example(action="brush hair", seed=340)  # and of everything else
@example(action="pick up", seed=3152)  # the deepest reach of all these seeds: 7.7 cm
def test_bones_keep_their_length_and_motion_is_human(action: str, seed: int) -> None:
    rng = generator("person", seed)
    body = Body.draw(rng)
    joints = perform(action, body, Manner.draw(rng, action), TIMES).joints
    assert np.isfinite(joints).all()
    for a, b, length in (
        (f.L_SHOULDER, f.L_ELBOW, body.upper_arm), (f.R_ELBOW, f.R_HAND, body.forearm),
        (f.R_HIP, f.R_KNEE, body.hip_height * 0.5), (f.L_KNEE, f.L_ANKLE, body.hip_height * 0.47),
    ):  # fmt: skip
        assert np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) == pytest.approx(length, abs=1e-6)
    assert joints[..., 1].min() > -0.08  # nothing below the floor but the hand that picks up
    assert joints[..., 1].max() < body.stature + 0.75
    speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() * 30
    assert speed < (THROW if action == "throw" else 15)


def test_drinking_takes_the_hand_to_the_mouth_and_back() -> None:
    joints, u, _ = performed("drink")
    to_head = np.linalg.norm(joints[:, f.R_HAND] - joints[:, f.HEAD], axis=-1)
    assert to_head[(u > 0.42) & (u < 0.62)].max() < 0.2
    assert to_head[[0, -1]].min() > 0.6


def test_eating_goes_to_the_mouth_three_times() -> None:
    joints, _, _ = performed("eat")
    near = np.linalg.norm(joints[:, f.R_HAND] - joints[:, f.HEAD], axis=-1) < 0.22
    assert np.count_nonzero(np.diff(near.astype(int)) == 1) == 3


def test_brushing_hair_goes_over_the_head() -> None:
    joints, u, _ = performed("brush hair")
    above = joints[:, f.R_HAND, 1] - joints[:, f.HEAD, 1]
    assert above[(u > 0.1) & (u < 0.9)].max() > 0.08
    behind = joints[:, f.R_HAND, 2] - joints[:, f.HEAD, 2]
    assert behind.min() < -0.05 < 0.05 < behind[(u > 0.1) & (u < 0.9)].max()


def test_sitting_down_ends_on_the_chair_and_standing_up_begins_there() -> None:
    down, _, body = performed("sit down")
    up, _, _ = performed("stand up")
    assert down[0, f.HIPS, 1] == pytest.approx(body.hip_height, abs=0.02)
    assert down[-1, f.HIPS, 1] == pytest.approx(SEAT_HEIGHT + 0.06, abs=0.02)
    assert up[0, f.HIPS, 1] == pytest.approx(SEAT_HEIGHT + 0.06, abs=0.02)
    assert up[-1, f.HIPS, 1] > 0.7


def test_clapping_brings_both_hands_together_several_times() -> None:
    joints, _, _ = performed("clap")
    apart = np.linalg.norm(joints[:, f.R_HAND] - joints[:, f.L_HAND], axis=-1)
    together = apart < 0.15
    assert np.count_nonzero(np.diff(together.astype(int)) == 1) >= 3


def test_objects_fall_rise_and_fly() -> None:
    body = Body.draw(generator("body"))
    manner = Manner(2.0, 0.0, False, 1.0, 0.5, np.zeros(12), np.zeros((2, 3)))
    height = {}
    for action in ("drop", "pick up", "throw"):
        (ball,) = perform(action, body, manner, TIMES).props
        height[action] = ball.ends[:, 0]
    assert height["drop"][0, 1] > 0.8
    assert height["drop"][-1, 1] < 0.12
    assert height["pick up"][0, 1] < 0.12
    assert height["pick up"][-1, 1] > 0.8
    assert height["throw"][-1, 2] > 3.0  # metres in front


def test_left_handed_is_the_mirror_image() -> None:
    right, _, _ = performed("throw")
    left, _, _ = performed("throw", left_handed=True)
    assert np.allclose(left[:, f.L_HAND], right[:, f.R_HAND] * [-1, 1, 1])
    assert np.allclose(left[:, f.R_KNEE], right[:, f.L_KNEE] * [-1, 1, 1])


def test_performances_can_be_joined() -> None:
    rng = generator("join")
    body = Body.draw(rng)
    takes = [perform("drink", body, Manner.draw(rng, "drink"), TIMES[:n]) for n in (10, 20)]
    joined = join(takes)
    assert joined.joints.shape == (30, 20, 3)
    assert joined.props[0].ends.shape == (30, 2, 3)


def test_every_action_has_key_poses_in_order() -> None:
    assert tuple(ACTIONS) == LABELS
    for action in ACTIONS.values():
        for keys in (action.main, action.other, action.trunk):
            moments = [key.u for key in keys]
            assert moments[0] == 0
            assert moments[-1] == 1
            assert moments == sorted(set(moments))
