"""DKD: decoupled knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from kd_edge.train.distil.methods.base import Method, NotNegative, Pair, Positive

if TYPE_CHECKING:
    from torch import Tensor


class DkdLoss(Method):
    """Decoupled knowledge distillation, see ``losses.dkd``; ``weight`` is the paper's alpha.

    Attributes:
        target_weight: alpha_T.
        nontarget_weight: alpha_N.
        temperature: Not given in the paper; 4 as in the reference implementation of DKD.
    """

    needs_answers: ClassVar[bool] = True
    kind: Literal["dkd"] = "dkd"
    weight: Positive = 0.1
    target_weight: NotNegative = 0.7
    nontarget_weight: NotNegative = 0.35
    temperature: Positive = 4.0

    @model_validator(mode="after")
    def _some_weight(self) -> DkdLoss:
        if self.target_weight == 0 == self.nontarget_weight:
            raise ValueError("target_weight and nontarget_weight are both 0: the loss is nothing")
        return self

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import dkd

        return dkd(
            pair.student.logits,
            pair.teacher.logits,
            pair.labels,
            target_weight=self.target_weight,
            nontarget_weight=self.nontarget_weight,
            temperature=self.temperature,
        )
