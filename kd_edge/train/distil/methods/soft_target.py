"""ST: soft targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.errors import TrainingError
from kd_edge.train.distil.methods.base import Method, Pair, Positive
from kd_edge.train.options import Teachers

if TYPE_CHECKING:
    from torch import Tensor

    from kd_edge.train.teachers.base import Teacher


class SoftTargetLoss(Method):
    """ST: Hinton's soft targets, see ``losses.soft_target``.

    Attributes:
        temperature: T, by which both networks' logits are divided.
        teachers: How several teachers count: ``mean`` alike, ``attention`` by the weights that the teachers' own
            attention gives them for this sample (``teacher.model.attention``).
    """

    needs_answers: ClassVar[bool] = True
    kind: Literal["soft_target"] = "soft_target"
    temperature: Positive = 4.0
    teachers: Teachers = "mean"

    @property
    def adds_teachers(self) -> bool:
        return self.teachers == "attention"

    def check(self, teacher: Teacher) -> None:
        if self.teachers != "attention" or teacher.attends:
            return
        if teacher.count == 1:
            raise TrainingError(
                "soft_target with teachers = 'attention' and a single teacher",
                "several sensors, and [teacher.model] attention = true",
                "set teachers = 'mean'",
            )
        raise TrainingError(
            "soft_target with teachers = 'attention', and teachers without attention",
            "[teacher.model] attention = true",
            "set teacher.model.attention=true, or teachers = 'mean'",
        )

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import soft_target

        weights = pair.teacher.attention if self.teachers == "attention" else None
        return soft_target(pair.student.logits, pair.teacher.logits, temperature=self.temperature, weights=weights)
