"""One training step, the same in a run, in its rehearsal and where its speed is measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from kd_edge.train.distil.learner import teach
from kd_edge.train.inputs.clips import Batch
from kd_edge.train.optim import make_optimiser
from kd_edge.train.recipe.stages import Training
from kd_edge.train.teachers.base import LabelLearner, Observation, Teacher


class Outcome(NamedTuple):
    """What a step came to, still on the device.

    Attributes:
        losses: Scalars by name, with ``total``.
        right: Number of samples classified rightly, a scalar.
    """

    losses: dict[str, Tensor]
    right: Tensor

    def wait(self) -> tuple[dict[str, float], int]:
        """Losses by name and the number of samples classified rightly: the one wait for the device in a step."""
        scalars = torch.stack([*self.losses.values(), self.right])
        *losses, right = scalars.tolist()
        return dict(zip(self.losses, losses, strict=True)), int(right)


class Step:
    """A learner, its optimiser and the teacher it looks at: what training does with one batch.

    Nothing here waits for the device, so that the host can fetch the next batch meanwhile; ``Outcome.wait`` does.

    Args:
        fabric: Device, precision and processes.
        learner: What is trained; moved to the device.
        stage: Optimiser, rates and the gradients' largest norm.
        teacher: Who is looked at, on the device; None trains on the labels alone.

    Attributes:
        learner: As given.
        optimiser: What changes the learner's parameters.
    """

    def __init__(self, fabric: Fabric, learner: LabelLearner, stage: Training, teacher: Teacher | None = None) -> None:
        learner.to(memory_format=torch.channels_last)
        self.learner = learner
        self._fabric, self._stage, self._teacher = fabric, stage, teacher
        self._module, self.optimiser = fabric.setup(learner, make_optimiser(learner, stage))

    def __call__(self, batch: Batch, epoch: int = 1) -> Outcome:
        """Take one step on a batch that is on the device, in an epoch counted from 1."""
        outcome = self.gradients(batch, epoch)
        self.update()
        return outcome

    def look(self, batch: Batch) -> tuple[Observation, ...] | None:
        """The teacher's view of the clips, in its own modality; None without a teacher."""
        if self._teacher is None:
            return None
        with self._fabric.autocast():
            return teach(self._teacher, batch["inputs"][1], self.learner.teacher_taps, ablate=self.learner.ablates)

    def gradients(self, batch: Batch, epoch: int = 1) -> Outcome:
        """The teacher's forward pass, and the learner's forward and backward pass."""
        labels = batch["labels"]
        known = {"targets": batch["inputs"][-1]} if self.learner.regresses else {}
        losses, logits = self._module(batch["inputs"][0], labels, self.look(batch), epoch, **known)
        self._fabric.backward(losses["total"])
        with torch.no_grad():
            right = (
                (logits.argmax(1) == labels).sum() if self.learner.answers else torch.zeros((), device=labels.device)
            )
            return Outcome({name: value.detach() for name, value in losses.items()}, right.float())

    def update(self) -> None:
        """Clip the gradients, change the weights and forget the gradients."""
        if self._stage.clip_gradient is not None:
            # Gradients that are not finite show in the next losses: to look at them here would wait for the device.
            self._fabric.clip_gradients(
                self._module, self.optimiser, max_norm=self._stage.clip_gradient, error_if_nonfinite=False
            )
        self.optimiser.step()
        self.optimiser.zero_grad()


def on_device(fabric: Fabric, loader: DataLoader[Batch]) -> Iterator[Batch]:
    """A loader's batches, each sent to the device when it is asked for.

    Asking for one right after a step was begun loads it while the device is still at work. The loader takes its random
    numbers before the first batch, so it does not matter how early the others are asked for.
    """
    for batch in loader:
        yield fabric.to_device(batch)
