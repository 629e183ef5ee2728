"""One training step, shared by training, the dry run and the benchmark."""

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
    """Result of a step, still on the device.

    Attributes:
        losses: Scalars by name, with ``total``.
        right: Number of correctly classified samples, a scalar.
    """

    losses: dict[str, Tensor]
    right: Tensor

    def wait(self) -> tuple[dict[str, float], int]:
        """Wait for the device; return losses by name and the number of correctly classified samples."""
        scalars = torch.stack([*self.losses.values(), self.right])
        *losses, right = scalars.tolist()
        return dict(zip(self.losses, losses, strict=True)), int(right)


class Step:
    """A learner with its optimiser and teacher; called with one batch at a time.

    Only ``Outcome.wait`` waits for the device, so that the host can load the next batch meanwhile.

    Args:
        fabric: Device, precision and processes.
        learner: What is trained; moved to the device.
        stage: Optimiser, learning rates and largest gradient norm.
        teacher: The teacher, on the device; None trains on the labels alone.

    Attributes:
        learner: As given.
        optimiser: The optimiser of the learner's parameters.
    """

    def __init__(self, fabric: Fabric, learner: LabelLearner, stage: Training, teacher: Teacher | None = None) -> None:
        learner.to(memory_format=torch.channels_last)
        self.learner = learner
        self._fabric, self._stage, self._teacher = fabric, stage, teacher
        self._module, self.optimiser = fabric.setup(learner, make_optimiser(learner, stage))

    def __call__(self, batch: Batch, epoch: int = 1) -> Outcome:
        """Run one step on a batch that is on the device; ``epoch`` counts from 1."""
        outcome = self.gradients(batch, epoch)
        self.update()
        return outcome

    def look(self, batch: Batch) -> tuple[Observation, ...] | None:
        """Run the teacher on the clips in its own modality; None without a teacher."""
        if self._teacher is None:
            return None
        with self._fabric.autocast():
            return teach(self._teacher, batch["inputs"][1], self.learner.teacher_taps, ablate=self.learner.ablates)

    def gradients(self, batch: Batch, epoch: int = 1) -> Outcome:
        """Run the teacher's forward pass and the learner's forward and backward pass."""
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
        """Clip the gradients, update the weights and reset the gradients."""
        if self._stage.clip_gradient is not None:
            # Non-finite gradients show in the next losses; checking them here would wait for the device.
            self._fabric.clip_gradients(
                self._module, self.optimiser, max_norm=self._stage.clip_gradient, error_if_nonfinite=False
            )
        self.optimiser.step()
        self.optimiser.zero_grad()


def on_device(fabric: Fabric, loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Yield a loader's batches, each moved to the device when it is requested.

    Requesting a batch right after starting a step loads it while the device is busy. The loader draws its random
    numbers before the first batch, so the time of the requests does not matter.
    """
    for batch in loader:
        yield fabric.to_device(batch)
