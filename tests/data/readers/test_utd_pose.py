from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.data.readers.utd_pose import JOINTS, LIMBS, centred, project, render


def test_known_projections() -> None:
    # u = 160 + 285 x/z, v = 120 - 285 y/z, worked out by hand
    points = np.array([[0, 0, 2], [1, 0, 2.85], [0.4, 0.2, 2], [-0.5, -0.3, 2.5]])
    assert project(points).tolist() == pytest.approx(
        np.array([[160, 120], [260, 120], [217, 91.5], [103, 154.2]]), abs=1e-4
    )


def test_limbs_have_their_own_colours_and_sides_differ() -> None:
    colours = {colour for *_, colour in LIMBS}
    assert len(colours) == len(LIMBS) == 19
    assert {joint for a, b, *_ in LIMBS for joint in (a, b)} == set(range(len(JOINTS)))


def standing(z: float = 2.5) -> np.ndarray:
    joints = np.zeros((20, 3), np.float32)
    joints[:, 2] = z
    joints[:4, 1] = 0.6, 0.4, 0.1, 0.0
    for first, side in ((4, -1.0), (8, 1.0)):
        joints[first : first + 4, 0] = np.array([0.2, 0.25, 0.3, 0.3]) * side
        joints[first : first + 4, 1] = 0.4, 0.1, -0.1, -0.15
    for first, side in ((12, -1.0), (16, 1.0)):
        joints[first : first + 4, 0] = 0.1 * side
        joints[first : first + 4, 1] = 0.0, -0.4, -0.8, -0.85
    return joints


def test_a_nearer_limb_hides_a_farther_one_and_is_thicker() -> None:
    joints = np.stack([standing(), standing(1.8)])
    images = render(joints)
    assert images.dtype == np.uint8
    assert (images[1] > 0).any(axis=-1).sum() > 1.3 * (images[0] > 0).any(axis=-1).sum()
    crossed = standing()
    crossed[9:12] = [[0.1, 0.3, 2.2], [0.0, 0.1, 2.0], [-0.1, 0.1, 2.0]]  # the right forearm before the trunk
    u, v = project(crossed[10]).round().astype(int)
    assert render(crossed[None])[0, v, u].tolist() in ([0, 200, 255], [120, 255, 255])


def test_a_centred_movement_stands_in_the_middle_wherever_it_was_made() -> None:
    jump = np.stack([standing(), standing(), standing()])
    jump[1, :, 1] += 0.3
    moved = jump + np.float32([0.7, -0.4, 1.1])
    assert centred(moved) == pytest.approx(centred(jump), abs=1e-6)
    hips = centred(moved)[:, JOINTS.index("hip_center")]
    assert hips == pytest.approx(np.array([[0, -0.1, 2.6], [0, 0.2, 2.6], [0, -0.1, 2.6]]), abs=1e-6)
    assert (render(centred(moved)) == render(centred(jump))).mean() > 0.999
    assert np.abs(project(np.array([[0, 1.09, 2.6], [0, -1.09, 2.6]])) - [[160, 0.5], [160, 239.5]]).max() < 0.1


def test_limbs_outside_the_picture_are_cut() -> None:
    joints = standing()
    joints[11] = [50.0, 50.0, 0.0]
    assert render(joints[None]).shape == (1, 240, 320, 3)


@pytest.mark.slow
def test_joints_fall_on_the_depth_foreground(utd_root: Path) -> None:
    """Over all 861 real clips it is 93.2 %; here over every 12th."""
    dataset = UtdMhad(utd_root)
    hits = []
    for sample in dataset.samples[::12]:
        depth, joints = dataset.open(sample, "depth").frames, dataset.open(sample, "skeleton").frames
        u, v = np.moveaxis(project(joints).round().astype(int), -1, 0)
        inside = (u >= 0) & (u < 320) & (v >= 0) & (v < 240)
        metres = depth[np.arange(len(depth))[:, None], v.clip(0, 239), u.clip(0, 319)] / 1000
        hits.append((inside & (metres > 0) & (np.abs(metres - joints[..., 2]) < 0.3)).mean())
    assert np.mean(hits) >= 0.85
