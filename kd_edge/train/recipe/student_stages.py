"""What a student goes through, stage by stage: dense targets, the labels end to end, its head on stored features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kd_edge.train.recipe.stages import NotNegative, Positive, Strict, Training

WindowKind = Literal["clip", "random", "loop", "mixed", "stream"]


class JointTargets(Strict):
    """Where the joints of a skeleton are, and how they move, in every frame.

    Positions are about the joints' median and in units of the body's size, x to the right as the camera sees it, y up,
    z away from it; crops that are turned, stretched or mirrored in training turn them, too.

    Attributes:
        modality: A modality of the data set whose clips are (T, J, 3) positions in metres in the camera's frame.
        velocity_ms: The change over this time is regressed as well; None leaves it out.
        lag_ms: By how much the skeleton's stamps lead the student's images.
        weight: Factor in the loss.
    """

    kind: Literal["joints"] = "joints"
    modality: str = "skeleton"
    velocity_ms: Annotated[float, Field(gt=0, le=2000)] | None = 100.0
    lag_ms: Annotated[float, Field(ge=-2000, le=2000)] = 0.0
    weight: Positive = 1.0

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a data set must have for them."""
        return (self.modality,)


class SignalTargets(Strict):
    """What wearable sensors measure at every frame's moment, smoothed.

    Attributes:
        sensors: Of the data set; three numbers each, of angles six.
        smooth_ms: Length of the moving average.
        frame: ``sensor`` takes the sensor's own axes. ``gravity`` takes what is upwards and how much is across, two
            numbers: a device may then be worn in any way.
        same_device: Sensor -> accelerometer of the device that it is part of, for ``gravity``; an accelerometer needs
            none.
        weight: Factor in the loss.
    """

    kind: Literal["signals"] = "signals"
    sensors: Annotated[tuple[str, ...], Field(min_length=1)]
    smooth_ms: Annotated[float, Field(ge=0, le=2000)] = 100.0
    frame: Literal["sensor", "gravity"] = "sensor"
    same_device: Annotated[dict[str, str], Field(default_factory=dict)]
    weight: Positive = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> SignalTargets:
        if len(set(self.sensors)) < len(self.sensors):
            raise ValueError(f"sensors names one twice: {', '.join(self.sensors)}")
        if self.same_device and self.frame == "sensor":
            raise ValueError("same_device is for frame = 'gravity'")
        if others := sorted(self.same_device.keys() - set(self.sensors)):
            raise ValueError(f"same_device names '{others[0]}', which is none of sensors")
        return self

    def accelerometer_of(self, sensor: str) -> str:
        """The accelerometer that feels gravity for a sensor: itself where nothing else is said."""
        return self.same_device.get(sensor, sensor)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a data set must have for them."""
        return tuple(dict.fromkeys((*self.sensors, *self.same_device.values())))


DenseTarget = Annotated[JointTargets | SignalTargets, Field(discriminator="kind")]


class DenseStage(Training):
    """The backbone alone on dense targets: in every frame it regresses what a richer modality says of that moment.

    No label is used. Clips that lack a target count for the others.

    Attributes:
        targets: What is regressed; each of about the spread 1 over the training clips.
        frames: Random frames of each clip in a batch.
        keep: Whether what was regressed stays in the student, beside the backbone's feature, for its head to read.
    """

    kind: Literal["dense"] = "dense"
    targets: Annotated[tuple[DenseTarget, ...], Field(min_length=1)]
    frames: Annotated[int, Field(ge=1, le=256)] = 12
    keep: bool = True
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: Positive = 0.002
    weight_decay: NotNegative = 0.05
    schedule: Literal["step", "one_cycle"] = "one_cycle"
    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=1)] = 8

    @property
    def has_joints(self) -> bool:
        """Whether skeletons are among the targets."""
        return any(isinstance(target, JointTargets) for target in self.targets)

    @model_validator(mode="after")
    def _trained(self) -> DenseStage:
        if self.weights is not None or self.class_weights is not None or self.label_smoothing:
            raise ValueError("weights, class_weights and label_smoothing are for stages that see labels")
        return self


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


AnyStage = Annotated[DenseStage | LabelsStage | HeadStage, Field(discriminator="kind")]
