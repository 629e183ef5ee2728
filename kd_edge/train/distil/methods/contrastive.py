"""Global contrastive distillation from a frozen teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.train.distil.methods.base import OneLayerMethod, Pair, Positive, size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Places, Who


class ContrastiveLoss(OneLayerMethod):
    """AnyThermal's global contrastive loss on the feature vectors, see ``losses.contrastive``.

    The student's feature goes through one linear layer to the teacher's size, which is dropped at export; the source,
    whose two networks are alike, needs none.

    Attributes:
        temperature: T; 0.07 as the source.
        symmetric: Whether students ask for their teacher, too; the source does not.
    """

    between_clips: ClassVar[bool] = True
    kind: Literal["contrastive"] = "contrastive"
    temperature: Positive = 0.07
    symmetric: bool = False

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return (places.feature,)

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.Flatten(1), nn.Linear(size(mine[0]), size(theirs[0])))

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import contrastive

        projected = pair.adapter(pair.mine[0])
        return contrastive(projected, pair.theirs[0], temperature=self.temperature, symmetric=self.symmetric)
