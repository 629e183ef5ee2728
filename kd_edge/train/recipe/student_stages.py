"""The stages of a student's training: dense targets, labels end to end, head on stored features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kd_edge.train.distil.methods.base import Weighted
from kd_edge.train.recipe.stages import NotNegative, Positive, Strict, Training

WindowKind = Literal["clip", "random", "loop", "mixed", "stream"]


class Target(Strict):
    """Common settings of dense targets.

    Attributes:
        shuffle: A control, whose targets are as they would be but no longer go with their frames. ``class`` gives every
            clip those of another clip of its own class, ``all`` of any other clip, each at the same share of the clip's
            length and from the same side of the split: who is alone there lacks them. ``time`` gives a clip its own in
            another order, in which no frame keeps its place. None leaves them where they belong.
        weight: Factor in the loss, which is a mean over all numbers: of two targets with the same weight, the one of
            120 numbers counts 20 times as much as the one of six.
    """

    shuffle: Literal["class", "time", "all"] | None = None
    weight: Positive = 1.0


class JointTargets(Target):
    """Positions and velocities of a skeleton's joints in every frame.

    Positions are about the joints' median and in units of the body's size, x to the right as the camera sees it, y up,
    z away from it; crops that are turned, stretched or mirrored in training turn them, too.

    Attributes:
        modality: A modality of the data set whose clips are (T, J, 3) positions in metres in the camera's frame.
        velocity_ms: The change over this time is regressed as well; None leaves it out.
        lag_ms: By how much the skeleton's stamps lead the student's images.
    """

    kind: Literal["joints"] = "joints"
    modality: str = "skeleton"
    velocity_ms: Annotated[float, Field(gt=0, le=2000)] | None = 100.0
    lag_ms: Annotated[float, Field(ge=-2000, le=2000)] = 0.0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that a data set must have."""
        return (self.modality,)


class SignalTargets(Target):
    """Signals of wearable sensors at the time of every frame, smoothed.

    Attributes:
        sensors: Of the data set; three numbers each, of angles six.
        smooth_ms: Length of the moving average.
        frame: ``sensor`` takes the sensor's own axes. ``gravity`` takes what is upwards and how much is across, two
            numbers: a device may then be worn in any way.
        same_device: Sensor -> accelerometer of the device that it is part of, for ``gravity``; an accelerometer needs
            none.
    """

    kind: Literal["signals"] = "signals"
    sensors: Annotated[tuple[str, ...], Field(min_length=1)]
    smooth_ms: Annotated[float, Field(ge=0, le=2000)] = 100.0
    frame: Literal["sensor", "gravity"] = "sensor"
    same_device: Annotated[dict[str, str], Field(default_factory=dict)]

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
        """The accelerometer that gives a sensor's direction of gravity; by default the sensor itself."""
        return self.same_device.get(sensor, sensor)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that a data set must have."""
        return tuple(dict.fromkeys((*self.sensors, *self.same_device.values())))


class PixelTargets(Target):
    """The student's own picture, as principal components: a control without any teacher's knowledge.

    The picture is what evaluation would see of the frame, cropped and normalised, its motion stack included; the
    components are those of the training clips. They share one scale, so that the largest count most, as in the picture
    itself. What training does to the student's picture (turned, mirrored, erased) is not done to them.

    Attributes:
        components: How many.
        side_px: Side of the picture that they are components of, scaled down by area averages.
        ahead_ms: Of the frame that comes so much later in the clip (earlier, if negative) instead of the frame itself;
            the clip's ends are held.
    """

    kind: Literal["pixels"] = "pixels"
    components: Annotated[int, Field(ge=1, le=1024)] = 120
    side_px: Annotated[int, Field(ge=1, le=64)] = 32
    ahead_ms: Annotated[float, Field(ge=-10_000, le=10_000)] = 0.0

    @property
    def modalities(self) -> tuple[str, ...]:
        """No further modalities."""
        return ()


class RandomTargets(Target):
    """Random motion with the spectrum of another target: a control without information about the clip.

    Every clip gets the target of any other clip of its side with its phases drawn anew, alike for all numbers, so that
    their power spectra, their means and how they go together stay what they are (Prichard and Theiler, Physical Review
    Letters 73, 1994). What training does to the student's picture is not done to them.

    Attributes:
        of: The target whose spectrum they have.
    """

    kind: Literal["random"] = "random"
    of: Annotated[JointTargets | SignalTargets | PixelTargets, Field(discriminator="kind")]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that a data set must have."""
        return self.of.modalities


class FeatureTargets(Target):
    """Features of the recipe's ``[teacher]`` at the time of every frame: an embedding, or a network's feature.

    Of a network it is the backbone's feature, and the network is trained before. Taken is the teacher's frame that is
    nearest at the same share of its clip. The teacher sees its pictures as evaluation does: how the student's is
    cropped, turned or mirrored changes nothing.

    Attributes:
        components: Only so many principal components, found on the training clips and kept in the run; None takes every
            number as it is.
    """

    kind: Literal["features"] = "features"
    components: Annotated[int, Field(ge=1, le=4096)] | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """No modalities beyond the teacher's."""
        return ()


DenseTarget = Annotated[
    JointTargets | SignalTargets | PixelTargets | RandomTargets | FeatureTargets, Field(discriminator="kind")
]


class DenseLoss(Weighted):
    """Dense targets beside the labels: in every segment the student's feature regresses their value at that time.

    One linear layer does, which is dropped at export; after a dense stage that kept the very same targets in the
    student, what it regresses itself. The targets are cropped with the picture, and scaled, as in that stage.

    Attributes:
        targets: What is regressed.
    """

    kind: Literal["dense"] = "dense"
    targets: Annotated[tuple[DenseTarget, ...], Field(min_length=1)]

    @property
    def features(self) -> FeatureTargets | None:
        """The targets that are features of the teacher."""
        return _features(self.targets)


class DenseStage(Training):
    """The backbone alone on dense targets: in every frame it regresses values of a richer modality at that time.

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
    def features(self) -> FeatureTargets | None:
        """The targets that are features of the teacher."""
        return _features(self.targets)

    @model_validator(mode="after")
    def _trained(self) -> DenseStage:
        if self.weights is not None or self.class_weights is not None or self.label_smoothing:
            raise ValueError("weights, class_weights and label_smoothing are for stages that see labels")
        return self


def _features(targets: tuple[DenseTarget, ...]) -> FeatureTargets | None:
    return next((target for target in targets if isinstance(target, FeatureTargets)), None)


class LabelsStage(Strict):
    """The whole network on labels and losses, with the settings of ``[student]``.

    Attributes:
        segments: T during this stage, and of the teacher, where a later stage trains the head on more; None is the
            recipe's.
    """

    kind: Literal["labels"] = "labels"
    segments: Annotated[int, Field(ge=2, le=64)] | None = None


class HeadStage(Training):
    """The temporal head alone, on stored features of the frozen backbone: many windows in a short time.

    Attributes:
        start: ``new`` begins with random weights, ``trained`` with those of the stage before.
        passes: How often the clips are encoded, each time with random changes of their own; windows take one of them.
        windows: Where the segments lie, in the recipe's words; None is the recipe's ``windows``.
        mixup: Alpha of mixup on the features: two windows are mixed by a share drawn from Beta(alpha, alpha), and so
            are their losses (Zhang et al., ICLR 2018). 0 does not mix.
        crossfit: Train on what encoders regress that had not seen a clip's subject: so many more dense stages, each
            without its share of the training subjects; ``subject`` is one for each. Their features differ, what they
            regress does not: the head must read that alone. What ships is the encoder of all subjects. None trains on
            what that one makes of the clips it was trained on.
    """

    kind: Literal["head"] = "head"
    start: Literal["new", "trained"] = "new"
    passes: Annotated[int, Field(ge=1, le=100)] = 4
    windows: WindowKind | None = None
    mixup: NotNegative = 0.0
    crossfit: Annotated[int, Field(ge=2, le=999)] | Literal["subject"] | None = None
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
