from __future__ import annotations

import pytest

from kd_edge.train import throughput
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import SensorTeacherConfig
from kd_edge.train.throughput import StepCost, images_cost, losses_cost, measure, step_cost
from tests.runs import tiny_values


@pytest.mark.slow
def test_throughput_measures_loader_and_step(tiny: Recipe) -> None:
    measured = measure(tiny, loader_batches=3, rounds=3)
    assert measured.loader > 0
    assert measured.step > 0
    assert measured.ratio == pytest.approx(measured.loader / measured.step)
    assert measured.threads == 1
    cost = measured.cost
    assert 0 < cost.teacher < cost.distilled
    assert 0 < cost.student < cost.distilled
    assert cost.rounds == 3


def test_the_ratio_is_the_median_of_the_rounds_after_the_first(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per round: teacher, student, both with the losses. Ratios of the counted rounds: 5 / 4, 9 / 6 and 4 / 4."""
    seconds = iter([9.0, 9.0, 99.0, 1.0, 3.0, 5.0, 2.0, 4.0, 9.0, 1.5, 2.5, 4.0])
    monkeypatch.setattr(throughput, "_seconds", lambda work: next(seconds))
    _, cost = step_cost(gather_material(tiny), rounds=3)
    assert (cost.teacher, cost.student, cost.distilled, cost.ratio) == (1.5, 3.0, 5.0, 1.25)


def test_without_a_teacher_the_step_is_the_students(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 9.0, 2.0, 3.0])
    monkeypatch.setattr(throughput, "_seconds", lambda work: next(seconds))
    alone = Recipe.model_validate(tiny_values(losses=[]) | {"teacher": None})
    cost = measure(alone, loader_batches=1, rounds=1).cost
    assert (cost.teacher, cost.student, cost.distilled, cost.ratio) == (0, 2.0, 3.0, 1.5)


def test_what_a_loss_costs_is_the_median_ratio_of_the_rounds_after_the_first(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per round: all three losses, then without each of them."""
    material = gather_material(tiny)
    seconds = iter([9.0, 1.0, 1.0, 1.0, 6.0, 3.0, 4.0, 5.0, 8.0, 2.0, 4.0, 8.0, 9.0, 3.0, 3.0, 6.0])
    monkeypatch.setattr(throughput, "_seconds", lambda work: next(seconds))
    assert losses_cost(material, rounds=3) == {"dkd": 3.0, "mgcam": 2.0, "soft_target": 1.2}


def test_a_single_loss_has_no_share(tiny: Recipe) -> None:
    assert losses_cost(gather_material(tiny.model_copy(update={"losses": tiny.losses[:1]})), rounds=1) == {}


def test_virtual_images_are_timed_as_training_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    small = SensorTeacherConfig(sensors=("a", "b"), points=32, scaling="sensor", interval="unit")
    assert 0 < images_cost(small, rounds=2) < images_cost(small.model_copy(update={"points": 256}), rounds=3)
    seen = []

    def look(*given: object) -> None:
        seen.append(given)

    monkeypatch.setattr(throughput, "network_inputs", look)
    images_cost(small, rounds=1)
    assert len(seen) == 2
    signals, config, ranges = seen[0]
    assert (signals.shape, config, ranges.shape) == ((64, 1, 3, 32), small, (1, 2))


@pytest.mark.parametrize(("network", "points"), [("resnet18", 32), ("conv1d", 0)])
def test_only_teachers_that_see_images_are_timed(
    network: str, points: int, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "gather_material", lambda *given: None)
    monkeypatch.setattr(throughput, "loader_throughput", lambda *given: 1.0)
    monkeypatch.setattr(throughput, "step_cost", lambda *given: (1.0, StepCost(1, 1, 1, 1, 1)))
    monkeypatch.setattr(throughput, "losses_cost", lambda *given: {})
    teacher = SensorTeacherConfig(sensors=("a",), points=32, model={"network": network})
    measured = measure(tiny.model_copy(update={"teacher": teacher}))
    assert measured.points == points
    assert (measured.images_ms > 0) == (points > 0)
