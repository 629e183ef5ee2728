"""A student that was never trained, clips of a class that it does not know, and clips of those it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge import recipes
from kd_edge.artifact import Artifact
from kd_edge.data import open_dataset
from kd_edge.export import ExportProfile, export
from kd_edge.types import Image
from tests.runs import DATA, write_run

FP32 = recipes.load("export", "fp32", ExportProfile, ["parity_clips=2", "health_clips=20"])
FPS = 30.0


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "thin-1", clip_seconds=1.6)


@pytest.fixture(scope="session")
def student(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(run, FP32, tmp_path_factory.mktemp("out") / "student.onnx").artifact


def waving(seed: int, seconds: float = 2.0, dtype: str = "uint8") -> Image:
    """(T, 64, 80): a striped cloth that moves to and fro in the middle, unlike anything that is generated."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * FPS)) / FPS
    shift = 8 * np.sin(2 * np.pi * (1.5 + 0.2 * rng.random()) * time + rng.random())
    y, x = np.mgrid[0:64, 0:80]
    cloth = np.exp(-(((x[None] - 40 - shift[:, None, None]) / 12) ** 2) - ((y - 32) / 18) ** 2)
    stripes = 70 + cloth * (60 + 60 * np.sin(x / 2.5)) + rng.normal(0, 1, cloth.shape)
    frames: Image = np.clip(stripes, 0, 255).astype(dtype)
    return frames


def write_clips(folder: Path, count: int = 6, **how: object) -> Path:
    """Clips of three people."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        np.save(folder / f"subject{k % 3}_trial{k // 3}_nir.npy", waving(k, **how))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips") / "wave")


@pytest.fixture(scope="session")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generated clips of each class of the student."""
    root, dataset = tmp_path_factory.mktemp("keep"), open_dataset(DATA)
    for sample in dataset.split("subjects").test:
        folder = root / dataset.labels[sample.label]
        folder.mkdir(exist_ok=True)
        np.save(folder / f"subject{sample.subject}_trial{sample.trial}_nir.npy", dataset.open(sample, "nir").frames)
    return root
