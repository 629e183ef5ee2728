"""A small UTD-MHAD in the original layout, with made-up content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io


def write_sample(root: Path, action: int, subject: int, trial: int, frames: int = 4) -> None:
    rng = np.random.default_rng([action, subject, trial])
    name = f"a{action}_s{subject}_t{trial}"
    depth = np.zeros((240, 320, frames), dtype=np.uint16)
    depth[60:200, 120:200] = 2000 + rng.integers(0, 500, frames, dtype=np.uint16)
    joints = np.concatenate([rng.uniform(-0.6, 0.6, (20, 2, frames)), rng.uniform(2, 3, (20, 1, frames))], axis=1)
    for folder, key, values in (
        ("Depth", "depth", depth),
        ("Skeleton", "skel", joints),
        ("Inertial", "iner", rng.normal(0, 1, (2 * frames + 1, 6))),
    ):
        ending = {"depth": "depth", "skel": "skeleton", "iner": "inertial"}[key]
        (root / folder).mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(root / folder / f"{name}_{ending}.mat", {f"d_{key}": values}, do_compression=True)


@pytest.fixture
def small_utd(tmp_path: Path) -> Path:
    """Two actions, two subjects, two trials; four frames each."""
    root = tmp_path / "utd-mhad"
    for action in (1, 2):
        for subject in (1, 2):
            for trial in (1, 3):
                write_sample(root, action, subject, trial)
    return root
