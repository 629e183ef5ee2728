"""SP of the SAKDN paper: semantic preserving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.train.distil.methods.base import OneLayerMethod, Pair, size
from kd_edge.train.options import Reduction

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Places, Who


class SemanticLoss(OneLayerMethod):
    """SP of the SAKDN paper (Eq. 24): the student's semantic feature is that of the teachers' fc2; ``weight`` is gamma.

    Eq. 24 has one h^S, which comes near every teacher's h: all teachers share an adapter.

    Attributes:
        reduction: ``mean`` over the elements as the official code, ``sum`` as the equation.
    """

    shares_adapter: ClassVar[bool] = True
    kind: Literal["semantic"] = "semantic"
    reduction: Reduction = "mean"

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return (places.semantic,)

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        from torch import nn

        if mine[0].shape == theirs[0].shape:
            return super().adapter(mine, theirs)
        return nn.Sequential(nn.Flatten(1), nn.Linear(size(mine[0]), size(theirs[0])))

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import semantic_preserving

        return semantic_preserving(pair.adapter(pair.mine[0]), pair.theirs[0], reduction=self.reduction)
