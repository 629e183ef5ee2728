from __future__ import annotations

import pytest

from kd_edge.train.recipe import Recipe
from kd_edge.train.throughput import measure
from tests.train.conftest import tiny_values


def test_throughput_measures_loader_and_step(tiny: Recipe) -> None:
    measured = measure(tiny, loader_batches=3, rounds=3)
    assert measured.loader > 0
    assert measured.step > 0
    assert measured.ratio == pytest.approx(measured.loader / measured.step)
    assert measured.threads == 1
    cost = measured.cost
    assert 0 < cost.teacher < cost.distilled
    assert 0 < cost.student < cost.distilled
    assert 0.5 < cost.ratio < 20
    assert cost.rounds == 3


def test_without_a_teacher_the_step_is_the_students() -> None:
    alone = Recipe.model_validate(tiny_values(losses=[]) | {"teacher": None})
    cost = measure(alone, loader_batches=1, rounds=2).cost
    assert cost.teacher == 0
    assert cost.ratio == pytest.approx(cost.distilled / cost.student, rel=0.8)
