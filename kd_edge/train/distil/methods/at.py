"""AT: attention transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kd_edge.train.distil.methods.base import FeatureMethod, Pair, Positive
from kd_edge.train.options import AttentionVariant

if TYPE_CHECKING:
    from torch import Tensor

    from kd_edge.train.teachers.base import Places, Who


class AttentionLoss(FeatureMethod):
    """AT: spatial attention maps of all stages, see ``losses.attention_transfer``.

    Attributes:
        variant: ``squared`` as the method's own code, ``paper`` as its Eq. 2, ``sakdn`` as the SAKDN code has it.
    """

    kind: Literal["at"] = "at"
    weight: Positive = 1000.0
    variant: AttentionVariant = "squared"

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return places.stages

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import attention_transfer

        return attention_transfer(pair.mine, pair.theirs, variant=self.variant)
