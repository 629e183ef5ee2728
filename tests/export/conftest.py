from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kd_edge.data import SyntheticData, open_dataset
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.saved import StudentSpec
from kd_edge.preprocess import PercentileWindow, Preprocess

DATA = SyntheticData(clips_per_class=4, subjects=4, height_px=64, width_px=80)


def write_run(folder: Path, **changes: Any) -> Path:
    """A run directory as the trainer leaves it, with random weights."""
    preprocess = Preprocess(
        resize_px=40, input_px=32, window=PercentileWindow(), motion_offsets_ms=(0, 70, 140), mean=(0.4,), std=(0.3,)
    )
    dataset = open_dataset(DATA)
    settings = {
        "model": ModelConfig(backbone="tiny", temporal="tconv", hidden=16),
        "preprocess": preprocess,
        "segments": 8,
        "clip_seconds": 2.0,
        "labels": dataset.labels,
        "modality": "nir",
        "data": DATA,
        "image_format": asdict(dataset.image_format("nir")),
        "split": "subjects",
    }
    spec = StudentSpec.model_validate({**settings, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model(spec.model, spec.preprocess.input_channels, len(spec.labels), spec.segments)
        for module in model.modules():  # statistics of a trained net: folding them must be seen to work
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "student.safetensors")
    summary = {
        "complete": True,
        "recipe": {"name": "thin"},
        "student_model": spec.model_dump(mode="json"),
        "temperature": 1.5,
        "unknown_threshold": 0.2,
        "stages": {"student": {"test": {"accuracy": 0.75, "macro_f1": 0.7, "per_class": {}, "confusion": [[1]]}}},
        "versions": {"torch": "0.0"},
        "recipe_fingerprint": "r",
        "data_fingerprint": "d",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "thin-1")
