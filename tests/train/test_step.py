from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from kd_edge.train.devices import make_fabric
from kd_edge.train.distil.learner import teach
from kd_edge.train.inputs.clips import Batch
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.networks import build_teacher, student_learner
from kd_edge.train.optim import make_optimiser
from kd_edge.train.recipe import Recipe
from kd_edge.train.step import Outcome, Step, on_device
from kd_edge.train.teachers.base import LabelLearner
from tests.runs import tiny_values


def recipe(**student: Any) -> Recipe:
    values = tiny_values()
    values["student"] |= student
    return Recipe.model_validate(values)


def batches(material: Material) -> Iterator[Batch]:
    loader, _ = material.training_loader(["student", "teacher"], material.recipe.student.batch_size)
    return iter(loader)


def test_a_step_is_the_textbook_step_bit_for_bit() -> None:
    material = gather_material(recipe(clip_gradient=0.5))
    config = material.recipe.teacher
    assert config is not None
    fabric, teacher = make_fabric(material.recipe, "cpu"), build_teacher(material, config)
    step = Step(fabric, student_learner(material, teacher), material.recipe.student, teacher)
    learner = student_learner(material, teacher).to(memory_format=torch.channels_last)
    optimiser = make_optimiser(learner, material.recipe.student)
    for number, batch in enumerate(batches(material)):
        clips, labels = batch["inputs"], batch["labels"]
        torch.manual_seed(number)
        losses, right = step(batch, epoch=2).wait()
        torch.manual_seed(number)
        values, logits = learner(clips[0], labels, teach(teacher, clips[1], learner.teacher_taps), 2)
        values["total"].backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 0.5)
        optimiser.step()
        optimiser.zero_grad()
        assert losses == {name: value.item() for name, value in values.items()}
        assert list(losses) == ["ce", "dkd", "mgcam", "soft_target", "total"]
        assert right == int((logits.argmax(1) == labels).sum())
        mine, theirs = step.learner.state_dict(), learner.state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_all_scalars_of_a_step_come_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, ...]] = []
    tolist = Tensor.tolist

    def counted(values: Tensor) -> Any:
        moved.append(tuple(values.shape))
        return tolist(values)

    monkeypatch.setattr(Tensor, "tolist", counted)
    monkeypatch.setattr(Tensor, "item", lambda values: pytest.fail("a transfer of its own"))
    outcome = Outcome({"ce": torch.tensor(0.1), "total": torch.tensor(2.5)}, torch.tensor(3.0))
    losses, right = outcome.wait()
    assert losses == {"ce": float(torch.tensor(0.1).numpy()), "total": 2.5}
    assert (right, type(right), moved) == (3, int, [(3,)])


def test_batches_are_sent_when_they_are_asked_for_and_take_no_random_numbers() -> None:
    material = gather_material(recipe())
    loader, _ = material.training_loader(["student"], 6)

    class Sent(Fabric):
        count = 0

        def to_device(self, obj: Any) -> Any:
            self.count += 1
            return super().to_device(obj)

    fabric = Sent(accelerator="cpu")
    arriving = on_device(fabric, loader)
    assert fabric.count == 0
    first = next(arriving)
    state = torch.get_rng_state()
    others = list(arriving)
    assert torch.equal(torch.get_rng_state(), state), "however early a batch is asked for"
    assert fabric.count == 1 + len(others) == 5
    assert first["inputs"][0].shape == (6, 4, 1, 32, 32)


def test_gradients_that_are_not_finite_do_not_stop_the_step() -> None:
    """The next losses tell of them, in one line."""
    model = torch.nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.fill_(1e38)
    step = Step(make_fabric(recipe(), "cpu"), LabelLearner(model), recipe(clip_gradient=1.0).student)
    batch: Batch = {"inputs": [torch.full((4, 2), 10.0)], "labels": torch.tensor([0, 1, 2, 0])}
    losses, _ = step(batch).wait()
    assert not torch.tensor(losses["total"]).isfinite()


def test_without_a_teacher_nobody_is_looked_at() -> None:
    material = gather_material(recipe())
    step = Step(make_fabric(material.recipe, "cpu"), student_learner(material, None), material.recipe.student)
    batch = next(batches(material))
    assert step.look(batch) is None
    assert list(step(batch).losses) == ["ce", "total"]
