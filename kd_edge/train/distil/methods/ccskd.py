"""CCSKD: channel-correlation-based selective distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.train.distil.methods.base import FeatureMethod, Pair, Positive
from kd_edge.train.options import CcskdVariant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Places, Who


class CcskdLoss(FeatureMethod):
    """CCSKD: channel vectors, their relations and selective soft targets, on a schedule; see ``losses.ccskd``.

    The published marks are epochs of a run of 200; they are scaled to the run's length. The cross-entropy always stays.

    Attributes:
        schedule: ``always`` has the selective soft targets from the first epoch; ``cifar`` from 30 % of the run on.
        temperature: By which the logits of both soft-target parts are divided.
    """

    needs_answers: ClassVar[bool] = True
    kind: Literal["ccskd"] = "ccskd"
    schedule: CcskdVariant = "always"
    temperature: Positive = 1.0

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return places.stages

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        from kd_edge.train.losses import CcskdConnectors

        rectify = [not layer.negative for layer in theirs]
        return CcskdConnectors(self.channels(mine), self.channels(theirs), rectify=rectify)

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import ccskd, ccskd_schedule

        return ccskd(
            pair.mine,
            pair.theirs,
            pair.student.logits,
            pair.teacher.logits,
            pair.labels,
            epoch=pair.epoch,
            connectors=pair.adapter,
            schedule=ccskd_schedule(self.schedule, epochs=pair.epochs),
            temperature=self.temperature,
        )
