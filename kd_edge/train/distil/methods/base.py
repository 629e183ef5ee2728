"""Base classes of distillation losses: settings, layers, adapters and value.

The modules of methods are imported to read a recipe, which must not need torch; functions that need torch import it
themselves.
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
    """Outputs of a student and one teacher for the same clips.

    Attributes:
        student: Output of the student; gradients flow into it.
        teacher: Output of the teacher; no gradient flows into it.
        mine: The student's features at the layers of the loss, in order.
        theirs: The teacher's features at the layers of the loss, in order.
        adapter: The trained adapter for this teacher, see ``Method.adapter``.
        labels: (b,) int64.
        epoch: Counted from 1.
        epochs: Length of the run.
        class_vectors: (K, D) vectors of the class names; None if the recipe has none.
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
    """A loss in addition to the cross-entropy; one ``[[losses]]`` table of a recipe.

    Attributes:
        kind: Its name in a recipe.
        weight: Its weight in the total loss.
        warmup_epochs: The weight rises linearly from 1 / warmup_epochs to its full value over that many epochs; 0
            disables this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: str
    weight: Positive = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0

    def weight_in(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 1."""
        return self.weight * (min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0)


class Method(Weighted):
    """A distillation loss: compares the outputs of student and teacher.

    The base class uses no layers and has no adapter.

    Attributes:
        between_clips: Whether it compares the clips of a batch with one another, and so needs more than one.
        needs_vectors: Whether it uses the vectors of the class names.
        needs_answers: Whether it uses the teacher's logits, which a frozen encoder does not have.
        shares_adapter: Whether all teachers share one adapter instead of having one each.
    """

    between_clips: ClassVar[bool] = False
    needs_vectors: ClassVar[bool] = False
    needs_answers: ClassVar[bool] = False
    shares_adapter: ClassVar[bool] = False

    @property
    def blank(self) -> Ablation | None:
        """The student's input without content, for losses that need one; None for all others."""
        return None

    @property
    def adds_teachers(self) -> bool:
        """Whether the values of several teachers are summed instead of averaged, because they are weighted already."""
        return False

    def check(self, teacher: Teacher) -> None:
        """Check that a teacher has what the loss needs.

        Raises:
            TrainingError: Something is missing.
        """

    def layers(self, places: Places, who: Who) -> tuple[str, ...]:
        """Return the module paths that the loss uses in one network.

        Args:
            places: The network's layers.
            who: ``student`` or ``teacher``.

        Raises:
            TrainingError: The recipe names a layer that the network does not have.
        """
        return ()

    def taps(self, places: Places, who: Who) -> list[Tap]:
        """Return the layers of one network, with the kind of sample."""
        return []

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        """Make the adapter for one teacher, which is trained with the student and dropped at export.

        Args:
            mine: The student's layers.
            theirs: The teacher's layers.

        Raises:
            TrainingError: The loss cannot compare the layers.
        """
        from torch import nn

        return nn.Identity()

    def prepare(self, mine: Observation, features: Sequence[Tensor], class_vectors: Tensor | None) -> Observation:
        """Complete the student's observation, once for all teachers."""
        return mine

    @abstractmethod
    def value(self, pair: Pair) -> Tensor:
        """Compute the unweighted value between the student and one teacher, a scalar.

        Raises:
            TrainingError: Features cannot be compared.
        """


class FeatureMethod(Method):
    """A loss on features.

    Attributes:
        student_layers: Module paths in the student; empty uses the method's default.
        teacher_layers: The corresponding layers of the teacher, in the same order.
        segments: ``mean`` averages a clip's features over its segments, one sample per clip; ``fold`` makes every
            segment a sample.
    """

    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()
    segments: Segments = "mean"

    @abstractmethod
    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        """Return the method's default layers in one network."""

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
        """Return channels, height and width of layers whose outputs are maps.

        Raises:
            TrainingError: The output of a layer is not a map.
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
        """Return the channels of layers whose outputs are maps."""
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
    """Return the number of elements of a layer's output for one frame."""
    return math.prod(layer.shape)
