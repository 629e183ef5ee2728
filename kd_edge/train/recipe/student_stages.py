"""What a student goes through, stage by stage: the labels end to end, and its head again on stored features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kd_edge.train.recipe.stages import NotNegative, Positive, Strict, Training

WindowKind = Literal["clip", "random", "loop", "mixed", "stream"]


class LabelsStage(Strict):
    """The whole network on labels and losses, as ``[student]`` says.

    Attributes:
        segments: T during this stage, where a later one trains the head on more; None is the recipe's.
    """

    kind: Literal["labels"] = "labels"
    segments: Annotated[int, Field(ge=2, le=64)] | None = None


class HeadStage(Training):
    """The temporal head alone, on stored features of the frozen backbone: many windows in little time.

    Attributes:
        start: ``new`` begins with random weights, ``trained`` with those of the stage before.
        passes: How often the clips are encoded, each time with random changes of their own; windows take one of them.
        windows: Where the segments lie, in the recipe's words; None is the recipe's ``windows``.
        mixup: Alpha of mixup on the features: two windows are mixed by a share drawn from Beta(alpha, alpha), and so
            are their losses (Zhang et al., ICLR 2018). 0 does not mix.
    """

    kind: Literal["head"] = "head"
    start: Literal["new", "trained"] = "new"
    passes: Annotated[int, Field(ge=1, le=100)] = 4
    windows: WindowKind | None = None
    mixup: NotNegative = 0.0
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: Positive = 0.002
    weight_decay: NotNegative = 0.05
    schedule: Literal["step", "one_cycle"] = "one_cycle"
    epochs: Annotated[int, Field(ge=1)] = 60
    batch_size: Annotated[int, Field(ge=1)] = 32
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _trained(self) -> HeadStage:
        if self.weights is not None:
            raise ValueError("weights is for the teacher; a head starts new or trained")
        return self


AnyStage = Annotated[LabelsStage | HeadStage, Field(discriminator="kind")]
