from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kd_edge.train.recipe import Recipe


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame cache for all tests of this folder."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tiny_values(**changes: Any) -> dict[str, Any]:
    """A recipe that trains in about a second: 24 generated clips of three frames' worth of network."""

    def stage(modality: str, channels: int) -> dict[str, Any]:
        return {
            "modality": modality,
            "model": {"backbone": "tiny", "temporal": "tconv", "hidden": 8},
            "preprocess": {"channels": channels, "resize_px": 36, "input_px": 32},
            "optimiser": "adamw",
            "learning_rate": 0.003,
            "schedule": "one_cycle",
            "epochs": 3,
            "batch_size": 6,
        }

    values = {
        "name": "tiny",
        "data": {"kind": "synthetic", "clips_per_class": 4, "subjects": 4, "height_px": 40, "width_px": 48},
        "split": "subjects",
        "segments": 4,
        "threads": 1,
        "student": stage("nir", 1),
        "teacher": stage("rgb", 3),
        "losses": [{"kind": "dkd"}, {"kind": "mgcam"}, {"kind": "soft_target", "weight": 0.5}],
    }
    return values | changes


@pytest.fixture
def tiny() -> Recipe:
    return Recipe.model_validate(tiny_values())
