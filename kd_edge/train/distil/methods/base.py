"""What every distillation loss is: its settings, the layers it looks at, what it trains beside the student, its value.

A method's module is imported to read a recipe, which needs no torch: what computes with torch imports it where it
computes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.errors import TrainingError
from kd_edge.train.options import Ablation, Segments

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Observation, Places, Tap, Teacher, Who

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Pair:
    """A student and one of its teachers before the same clips.

    Attributes:
        student: What the student made of them; gradients flow into it.
        teacher: What the teacher made of them; no gradient flows into it.
        mine: The student's features at the layers of the loss, in their order.
        theirs: The teacher's features at its layers of the loss, in their order.
        adapter: What the loss trains for this teacher, see ``Method.adapter``.
        labels: (b,) int64.
        epoch: Counted from 1.
        epochs: Length of the run.
        class_vectors: (K, D) of the class names; None where the recipe has none.
    """

    student: Observation
    teacher: Observation
    mine: Sequence[Tensor]
    theirs: Sequence[Tensor]
    adapter: nn.Module
    labels: Tensor
    epoch: int
    epochs: int
    class_vectors: Tensor | None


class Weighted(BaseModel):
    """A loss beside the cross-entropy; one ``[[losses]]`` table of a recipe.

    Attributes:
        kind: Its name in a recipe.
        weight: Factor of its value in the total loss.
        warmup_epochs: The weight rises linearly from 1 / warmup_epochs to its full value over that many epochs; 0 has
            it full from the start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: str
    weight: Positive = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0

    def weight_in(self, epoch: int) -> float:
        """Factor in the total loss in an epoch, counted from 1."""
        return self.weight * (min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0)


class Method(Weighted):
    """A distillation loss: what a teacher makes of the clips is compared with what the student makes of them.

    As it stands it looks at no layer and trains nothing of its own.

    Attributes:
        between_clips: Whether it compares the clips of a batch with one another: it says nothing about a single clip.
        needs_vectors: Whether it compares with the vectors of the class names.
        needs_answers: Whether it looks at the teacher's logits, which a frozen encoder does not have.
        shares_adapter: Whether all teachers have one adapter together instead of one each.
    """

    between_clips: ClassVar[bool] = False
    needs_vectors: ClassVar[bool] = False
    needs_answers: ClassVar[bool] = False
    shares_adapter: ClassVar[bool] = False

    @property
    def blank(self) -> Ablation | None:
        """What a clip without content is to the student, for losses that compare with one; None for all others."""
        return None

    @property
    def adds_teachers(self) -> bool:
        """Whether the values of several teachers are added up and not averaged: each is weighed already."""
        return False

    def check(self, teacher: Teacher) -> None:
        """Refuse a teacher that does not have what the loss asks for.

        Raises:
            TrainingError: Says what it lacks.
        """

    def layers(self, places: Places, who: Who) -> tuple[str, ...]:
        """Module paths that the loss looks at in one network.

        Args:
            places: The network's layers.
            who: Which of the two it is.

        Raises:
            TrainingError: The recipe names one that the network does not have.
        """
        return ()

    def taps(self, places: Places, who: Who) -> list[Tap]:
        """The layers of one network, with what of a clip is a sample."""
        return []

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        """What is trained with the student, for one teacher, and dropped at export.

        Args:
            mine: The student's layers.
            theirs: The teacher's layers.

        Raises:
            TrainingError: Layers that the loss cannot compare.
        """
        from torch import nn

        return nn.Identity()

    def prepare(self, mine: Observation, features: Sequence[Tensor], class_vectors: Tensor | None) -> Observation:
        """What the student's view is completed by, once for all its teachers."""
        return mine

    @abstractmethod
    def value(self, pair: Pair) -> Tensor:
        """Value between the student and one teacher before the weight, a scalar.

        Raises:
            TrainingError: Features that cannot be compared.
        """


class FeatureMethod(Method):
    """A loss on features.

    Attributes:
        student_layers: Module paths in the student; empty takes the method's own choice.
        teacher_layers: Their counterparts in the teacher, in the same order.
        segments: ``mean`` averages a clip's features over its segments, one sample per clip; ``fold`` makes every
            segment a sample of its own.
    """

    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()
    segments: Segments = "mean"

    @abstractmethod
    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        """The method's own choice of layers in one network."""

    def layers(self, places: Places, who: Who) -> tuple[str, ...]:
        named = self.student_layers if who == "student" else self.teacher_layers
        for path in named:
            places.check(path)
        return named or self.own_layers(places, who)

    def taps(self, places: Places, who: Who) -> list[Tap]:
        from kd_edge.train.teachers.base import Tap

        return [Tap(path, self.segments) for path in self.layers(places, who)]

    def check(self, teacher: Teacher) -> None:
        if self.segments == "fold" and not teacher.has_segments:
            raise TrainingError(
                f"loss '{self.kind}' with segments = 'fold' and sensors as teachers, which have no segments",
                "segments = 'mean'",
                "change segments",
            )

    def maps(self, layers: Sequence[Layer]) -> list[tuple[int, int, int]]:
        """Channels, height and width of layers that put out maps.

        Raises:
            TrainingError: One of them does not.
        """
        for layer in layers:
            if len(layer.shape) != 3:
                raise TrainingError(
                    f"loss '{self.kind}' on a layer of shape {layer.shape}",
                    "(channels, height, width)",
                    "choose a stage's output",
                )
        return [(layer.shape[0], layer.shape[1], layer.shape[2]) for layer in layers]

    def channels(self, layers: Sequence[Layer]) -> list[int]:
        """Channels of layers that put out maps."""
        return [channels for channels, _, _ in self.maps(layers)]


class OneLayerMethod(FeatureMethod):
    """A loss on one feature of each network."""

    @model_validator(mode="after")
    def _one_layer(self) -> OneLayerMethod:
        if len(self.student_layers) > 1 or len(self.teacher_layers) > 1:
            raise ValueError(
                "this kind of loss compares one layer of each network; add a second [[losses]] for another"
            )
        return self


def size(layer: Layer) -> int:
    """Number of elements of a layer's output for one frame."""
    return math.prod(layer.shape)
