from __future__ import annotations

import pytest

from kd_edge.errors import ConfigError
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
