"""SP: similarity preserving."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.train.distil.methods.base import OneLayerMethod, Pair, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from kd_edge.train.teachers.base import Places, Who


class SimilarityLoss(OneLayerMethod):
    """SP: similarity of the batch's samples in the last stage, see ``losses.similarity_preserving``."""

    between_clips: ClassVar[bool] = True
    kind: Literal["sp"] = "sp"
    weight: Positive = 3000.0

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return (places.stages[-1],)

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import similarity_preserving

        return similarity_preserving(pair.mine[0], pair.theirs[0])
