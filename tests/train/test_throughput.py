from __future__ import annotations

import pytest

from kd_edge.train.recipe import Recipe
from kd_edge.train.throughput import measure


def test_throughput_measures_loader_and_step(tiny: Recipe) -> None:
    measured = measure(tiny, loader_batches=3, step_batches=2)
    assert measured.loader > 0
    assert measured.step > 0
    assert measured.ratio == pytest.approx(measured.loader / measured.step)
    assert measured.threads == 1
