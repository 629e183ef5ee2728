from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.train import checks
from kd_edge.train.checks import check_batches
from kd_edge.train.recipe import Recipe
from tests.runs import tiny_values


def test_batches_must_be_dealt_out_evenly() -> None:
    check_batches(Recipe.model_validate(tiny_values()), 6)
    with pytest.raises(ConfigError, match=r"student\.batch_size 6 on 4 devices"):
        check_batches(Recipe.model_validate(tiny_values()), 4)


def test_losses_between_clips_need_two_clips_on_every_device() -> None:
    recipe = Recipe.model_validate(tiny_values(losses=[{"kind": "dkd"}, {"kind": "rkd"}]))
    check_batches(recipe, 3)
    with pytest.raises(ConfigError, match="loss 'rkd' compares the clips of a batch"):
        check_batches(recipe, 6)


def test_batches_of_every_stage_are_dealt_out_evenly() -> None:
    values = tiny_values(teacher=None, losses=[])
    values["stages"] = [{"kind": "labels"}, {"kind": "head", "batch_size": 5}]
    recipe = Recipe.model_validate(values)
    checks.check_batches(recipe, 1)
    with pytest.raises(ConfigError, match="batch_size of the head stage 5 on 2 devices"):
        checks.check_batches(recipe, 2)


def test_a_rate_is_called_what_a_recipe_calls_it(tmp_path: Path) -> None:
    for stage, name in (("student", "student.learning_rate"), ("dense", "learning_rate of the dense stage")):
        with pytest.raises(TrainingError, match=f"train again with a lower {name}"):
            checks.check_finite({"total": float("nan")}, stage, 1, 2, tmp_path)
