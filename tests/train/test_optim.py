from __future__ import annotations

import pytest
import torch

from kd_edge.train.optim import learning_rate, make_optimiser
from kd_edge.train.recipe.stages import StageConfig


def stage(**changes: object) -> StageConfig:
    return StageConfig.model_validate({"modality": "nir", "learning_rate": 0.1} | changes)


def test_step_schedule_divides_by_ten_at_half_and_three_quarters() -> None:
    rates = [learning_rate(stage(), step, 100) for step in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_one_cycle_is_torchs_one_cycle() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=1001, final_div_factor=400)
    for step in range(1000):
        expected = reference.get_last_lr()[0]
        assert learning_rate(stage(schedule="one_cycle"), step, 1000) == pytest.approx(expected, rel=0.02, abs=1e-5)
        optimiser.step()
        reference.step()


def test_only_weights_decay() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    groups = make_optimiser(module, stage(weight_decay=0.5)).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.5), (3, 0.0)]
    assert make_optimiser(module, stage()).param_groups[0]["momentum"] == 0.9
    assert make_optimiser(module, stage(optimiser="adamw")).param_groups[0]["betas"] == (0.9, 0.999)
