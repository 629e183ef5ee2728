"""Squared distance of the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.train.distil.methods.base import Method, Pair

if TYPE_CHECKING:
    from torch import Tensor


class LogitsLoss(Method):
    """Squared distance of the logits, see ``losses.logit_mse``."""

    needs_answers: ClassVar[bool] = True
    kind: Literal["logits"] = "logits"

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import logit_mse

        return logit_mse(pair.student.logits, pair.teacher.logits)
