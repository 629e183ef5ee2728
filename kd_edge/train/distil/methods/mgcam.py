"""MGCAM: multi-scale graph cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from kd_edge.train.distil.methods.base import FeatureMethod, Pair, Positive
from kd_edge.train.options import Align, Graph, Pairs, Reduction, Scale

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Places, Who


class MgcamLoss(FeatureMethod):
    """Multi-scale graph cross-attention on all stages, see ``losses.mgcam``; ``weight`` is the paper's beta.

    Attributes:
        graph: Edges between the samples of one network, or of the two (equal feature sizes only).
        scale: Distance of the sample graphs.
        tau: Factor on the attention's logits.
        reduction: Over the elements of a map.
        pairs: Which stages are compared.
        align: How different channel counts are compared.
        detach_attention: Keep the gradient out of the attention.
    """

    kind: Literal["mgcam"] = "mgcam"
    graph: Graph = "intra"
    scale: Scale = "mean"
    tau: Positive = 1.0
    reduction: Reduction = "sum"
    pairs: Pairs = "matched"
    align: Align = "conv"
    detach_attention: bool = False

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return places.stages

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        from kd_edge.train.losses import MgcamAdapters

        if self.align == "channel_mean":
            return super().adapter(mine, theirs)
        return MgcamAdapters(self.channels(mine), self.channels(theirs), self.pairs)

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import mgcam

        return mgcam(
            pair.mine,
            pair.theirs,
            adapters=pair.adapter,
            align=self.align,
            scale=self.scale,
            tau=self.tau,
            reduction=self.reduction,
            pairs=self.pairs,
            graph=self.graph,
            detach_attention=self.detach_attention,
        )
