"""The joints that each reader's skeletons make targets of, at one frame (NTU and PKU: test_kinect_skeletons)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import scipy.io

from kd_edge.data import Dataset
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.data.synthetic.actions import perform
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.train.inputs.targets import gather_targets
from kd_edge.train.recipe.student_stages import JointTargets

COLUMN = 0.9 - np.arange(20) / 10
"""Heights of twenty joints, 10 cm apart: their median is -0.05, and they lie 0.05 to 0.95 m on either side of it, at a
mean square of 0.01 * (0.5^2 + 1.5^2 + .. + 9.5^2) / 10 = 0.3325."""


def at_frame(dataset: Dataset, seen: str, frame: int, target: JointTargets) -> np.ndarray:
    """(J, 3) of a frame of the first sample, as they are before they are scaled."""
    samples = dataset.samples[:1]
    stamps = {s.id: dataset.open(s, seen).stamps_ns for s in samples}
    values: np.ndarray = gather_targets([target], dataset, stamps, samples).of(samples[0].id, np.array([frame]))
    return values.reshape(-1, 3)


def test_utd_mhad(tmp_path: Path) -> None:
    """The skeleton leads by one of its frames, so at the second frame it is that of the first."""
    joints = np.zeros((20, 3, 4))
    joints[:, 1], joints[:, 2] = COLUMN[:, None], 2.5
    joints[0, 0] = [0.2, 0.4, 0.6, 0.8]  # the head goes to the right
    for folder, key, values in (("Depth", "depth", np.zeros((240, 320, 4), np.uint16)), ("Skeleton", "skel", joints)):
        (tmp_path / folder).mkdir()
        ending = {"skel": "skeleton"}.get(key, key)
        scipy.io.savemat(tmp_path / folder / f"a1_s1_t1_{ending}.mat", {f"d_{key}": values})
    found = at_frame(UtdMhad(tmp_path), "depth", 1, JointTargets(velocity_ms=None, lag_ms=1000 / 30))
    sizes = [math.sqrt(0.3325 + x * x / 20) for x in (0.2, 0.4, 0.6, 0.8)]
    size = (sizes[1] + sizes[2]) / 2
    np.testing.assert_allclose(found[:, 1], (COLUMN + 0.05) / size, atol=1e-6)
    np.testing.assert_allclose(found[0, 0], 0.2 / size, atol=1e-6)
    np.testing.assert_allclose(found[1:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 2], 0, atol=1e-6)


def test_key_points_of_own_recordings(tmp_path: Path) -> None:
    """Three key points in pixels, whose rows count downwards; without the last one the others' middle is (20, 40).

    In the first frame (10, 30), (20, 40), (60, 80) have the median (20, 40): from it (-10, 10), (0, 0), (40, -40).
    """
    for label in ("sit", "wave"):
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / "1_ir.npy", np.zeros((3, 8, 8), np.uint8))
        (tmp_path / label / "1_skeleton.csv").write_text("10,30,1,20,40,1,60,80,1\n" * 2 + "10,30,1,30,50,1,60,80,0\n")
    (tmp_path / "dataset.toml").write_text('[modality.skeleton]\njoint = "xyc"\nup = "-y"')
    files = Files(tmp_path)
    first, last = (at_frame(files, "ir", k, JointTargets(velocity_ms=None)) for k in (0, 2))
    size = math.sqrt((200 + 0 + 3200) / 3)
    np.testing.assert_allclose(first, np.array([[-10, 10, 0], [0, 0, 0], [40, -40, 0]]) / size, atol=1e-6)
    np.testing.assert_allclose(last[:2], np.array([[-10, 10, 0], [10, -10, 0]]) / size, atol=1e-6)
    assert np.isnan(last[2]).all()


def test_the_generated_set() -> None:
    """What the figure does, seen by a camera that turns it: heights are the figure's own, about their median."""
    dataset = Synthetic(clips_per_class=2, subjects=2, height_px=32, width_px=40, fps=10)
    sample = dataset.samples[0]
    take = dataset._take(sample)
    body = perform(take.action, take.body, take.manner, np.arange(take.frames) / 10).joints
    found = at_frame(dataset, "nir", 7, JointTargets(velocity_ms=None))
    heights = body[7, :, 1] - np.median(body[7, :, 1])
    scale = (found[:, 1] @ heights) / (heights @ heights)  # one over the body's size
    np.testing.assert_allclose(found[:, 1], heights * scale, atol=1e-4)
    yaw = take.camera.yaw
    across = body[7, :, 0] * np.cos(yaw) + body[7, :, 2] * np.sin(yaw)
    np.testing.assert_allclose(found[:, 0] / scale, across - np.median(across), atol=1e-4)
    size = np.sqrt((found**2).sum(axis=1).mean())
    assert 0.8 < size < 1.25  # one body's size in most frames
