"""What a run trains on where sensors recorded only a part of their clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data import Sample
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.recipe import Recipe
from kd_edge.types import Clip
from tests.runs import run_all, tiny_values

SENSORS = ("accelerometer", "gyroscope")


def recipe() -> Recipe:
    teacher = {
        "kind": "sensors",
        "sensors": SENSORS,
        "points": 32,
        "model": {"network": "conv1d", "width": 6},
        "jitter": {"shift": 0.6, "stretch": 0.5},
        "semantic_weight": 0,
        "epochs": 1,
        "batch_size": 6,
    }
    values = tiny_values(teacher=teacher, losses=[{"kind": "soft_target"}])
    values["student"]["epochs"] = 1
    return Recipe.model_validate(values)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """Sample id -> sensors that stop after 40 % of it; to be filled in before the material is gathered."""
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    stopped: dict[str, tuple[str, ...]] = {}
    whole = Synthetic.open

    def cut(self: Synthetic, sample: Sample, modality: str, **kwargs: Any) -> Clip:
        clip = whole(self, sample, modality, **kwargs)
        if modality not in stopped.get(sample.id, ()):
            return clip
        count = round(0.4 * len(clip.stamps_ns))
        return replace(clip, frames=clip.frames[:count], stamps_ns=clip.stamps_ns[:count])

    monkeypatch.setattr(Synthetic, "open", cut)
    return stopped


@pytest.mark.slow
def test_what_hardly_covers_its_clip_is_found_before_training(
    short: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    plain = gather_material(recipe())
    trained, tested = [s.id for s in plain.train], [s.id for s in plain.test]
    short[trained[0]] = short[tested[1]] = SENSORS
    short[trained[1]] = short[trained[2]] = ("gyroscope",)
    for file in (tmp_path / "cache").glob("*-signals-*"):
        file.unlink()
    material = gather_material(recipe())
    assert [s.id for s in material.train] == trained[1:]
    assert [s.id for s in material.test] == tested  # the student has all it needs
    assert [s.id for s in material.having("teacher", material.test)] == [tested[0], *tested[2:]]
    why = "; ".join(f"{sensor} covers less than half of the clip" for sensor in SENSORS)
    assert material.skipped == {trained[0]: why, tested[1]: why}
    assert material.lacking == {"accelerometer": 0, "gyroscope": 2}
    loader, batches = material.training_loader(["teacher"], 7)
    for epoch in range(1, 4):
        batches.epoch = epoch
        for batch in loader:
            missing = batch["inputs"][0].isnan().flatten(2).all(dim=2)
            assert not missing[:, 0].any()
            assert not batch["inputs"][0][~missing].isnan().any()
    seen = np.concatenate([b["inputs"][0].isnan().flatten(2).all(dim=2) for b in loader])
    assert seen[:, 1].sum() <= 2  # those two, never one more

    summary = run_all(recipe(), tmp_path / "run")[-1].summary
    assert summary.stages["teacher"].test_samples == len(tested) - 1
    assert summary.protocol.test_samples == len(tested)
    assert summary.stages["teacher"].lacking == {"accelerometer": 0, "gyroscope": 2}
    assert summary.protocol.skipped == {trained[0]: why, tested[1]: why}
