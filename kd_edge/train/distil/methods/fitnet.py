"""FitNet: hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from kd_edge.train.distil.methods.base import OneLayerMethod, Pair, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Places, Who


class FitnetLoss(OneLayerMethod):
    """FitNet: the student's second stage, through a regressor, predicts the teacher's; see ``losses.hint_mse``."""

    kind: Literal["fitnet"] = "fitnet"
    weight: Positive = 100.0

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return (places.stages[1],)

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        from kd_edge.train.losses import HintRegressor

        return HintRegressor(self.maps(mine)[0], self.maps(theirs)[0], rectify=not theirs[0].negative)

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import hint_mse

        return hint_mse(pair.adapter(pair.mine[0]), pair.theirs[0])
