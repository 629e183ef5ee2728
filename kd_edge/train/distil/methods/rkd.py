"""RKD: relations between samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from kd_edge.train.distil.methods.base import NotNegative, OneLayerMethod, Pair

if TYPE_CHECKING:
    from torch import Tensor

    from kd_edge.train.teachers.base import Places, Who


class RkdLoss(OneLayerMethod):
    """RKD: distances and angles between the samples' feature vectors, see ``losses.rkd_distance`` and ``rkd_angle``.

    Attributes:
        distance_weight: Factor of the distances.
        angle_weight: Factor of the angles.
    """

    between_clips: ClassVar[bool] = True
    kind: Literal["rkd"] = "rkd"
    distance_weight: NotNegative = 25.0
    angle_weight: NotNegative = 50.0

    @model_validator(mode="after")
    def _some_weight(self) -> RkdLoss:
        if self.distance_weight == 0 == self.angle_weight:
            raise ValueError("distance_weight and angle_weight are both 0: the loss is nothing")
        return self

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return (places.feature,)

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import rkd_angle, rkd_distance

        mine, theirs = pair.mine[0], pair.theirs[0]
        parts = [
            weight * part(mine, theirs)
            for weight, part in ((self.distance_weight, rkd_distance), (self.angle_weight, rkd_angle))
            if weight
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]
