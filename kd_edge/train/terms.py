"""One distillation term: which layers it looks at, the adapters it trains, and its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.layers import check_layer
from kd_edge.train import losses as L
from kd_edge.train.loss_config import (
    AttentionLoss,
    CcskdLoss,
    CorrelationLoss,
    DkdLoss,
    FitnetLoss,
    LogitsLoss,
    Loss,
    MgcamLoss,
    RkdLoss,
    SimilarityLoss,
    SoftTargetLoss,
)

Shape = tuple[int, ...]
Who = Literal["student", "teacher"]


class Tap(NamedTuple):
    """A layer that is looked at.

    Attributes:
        path: Module path.
        segments: ``mean`` sees its mean over a clip's segments (B, ...), ``fold`` every frame (B*T, ...).
    """

    path: str
    segments: Literal["mean", "fold"]


class Observation(NamedTuple):
    """What a network made of a batch of clips.

    Attributes:
        logits: (B, K).
        taps: Only what a term asked for.
    """

    logits: Tensor
    taps: Mapping[Tap, Tensor]


class Layer(NamedTuple):
    """What is known of a tapped layer before training.

    Attributes:
        shape: Of its output for one frame.
        negative: Whether its output has negative values; without, it ends in a ReLU.
    """

    shape: Shape
    negative: bool


class Term(nn.Module):
    """A configured loss between two observations, with the adapters it trains (dropped at export).

    Args:
        config: The recipe's table.
        student: For its layers.
        teacher: Likewise.
        layers: Every tapped layer by path: the student's and the teacher's.
        epochs: Length of the run, for terms on a schedule.

    Raises:
        TrainingError: The networks' layers do not pair up.
    """

    def __init__(
        self,
        config: Loss,
        student: ClipModel,
        teacher: ClipModel,
        layers: tuple[Mapping[str, Layer], Mapping[str, Layer]],
        epochs: int,
    ) -> None:
        super().__init__()
        self.config = config
        how: Literal["mean", "fold"] = getattr(config, "segments", "mean")
        self.student_taps = [Tap(path, how) for path in tapped_layers(config, student, "student")]
        self.teacher_taps = [Tap(path, how) for path in tapped_layers(config, teacher, "teacher")]
        mine = [layers[0][tap.path] for tap in self.student_taps]
        theirs = [layers[1][tap.path] for tap in self.teacher_taps]
        self.adapters = _adapters(config, mine, theirs)
        self.schedule = L.ccskd_schedule(config.schedule, epochs=epochs) if isinstance(config, CcskdLoss) else None

    def weight(self, epoch: int) -> float:
        """Factor in the total loss in an epoch, counted from 1."""
        warmup = self.config.warmup_epochs
        return self.config.weight * (min(epoch / warmup, 1.0) if warmup else 1.0)

    def forward(self, mine: Observation, seen: Observation, labels: Tensor, epoch: int) -> Tensor:
        """Value of the term before its weight, a scalar; no gradient flows into the teacher's observation."""
        config = self.config
        students = [mine.taps[tap] for tap in self.student_taps]
        teachers = [seen.taps[tap] for tap in self.teacher_taps]
        match config:
            case SoftTargetLoss():
                return L.soft_target(mine.logits, seen.logits, temperature=config.temperature)
            case LogitsLoss():
                return L.logit_mse(mine.logits, seen.logits)
            case DkdLoss():
                return L.dkd(mine.logits, seen.logits, labels, **_options(config))
            case MgcamLoss():
                adapters = self.adapters if isinstance(self.adapters, L.MgcamAdapters) else None
                return L.mgcam(students, teachers, adapters=adapters, **_options(config))
            case FitnetLoss():
                return L.hint_mse(self.adapters(students[0]), teachers[0])
            case AttentionLoss():
                return L.attention_transfer(students, teachers, variant=config.variant)
            case SimilarityLoss():
                return L.similarity_preserving(students[0], teachers[0])
            case CorrelationLoss():
                embedding = self.adapters if isinstance(self.adapters, L.CorrelationEmbedding) else None
                options = _options(config, "embedding")
                return L.correlation_congruence(students[0], teachers[0], embedding=embedding, **options)
            case RkdLoss():
                distance, angle = config.distance_weight, config.angle_weight
                zero = students[0].new_zeros((), dtype=torch.float32)
                return (distance * L.rkd_distance(students[0], teachers[0]) if distance else zero) + (
                    angle * L.rkd_angle(students[0], teachers[0]) if angle else zero
                )
            case CcskdLoss():
                assert isinstance(self.adapters, L.CcskdConnectors)
                return L.ccskd(
                    students, teachers, mine.logits, seen.logits, labels,
                    epoch=epoch, connectors=self.adapters, schedule=self.schedule, temperature=config.temperature,
                )  # fmt: skip


def _options(config: Loss, *without: str) -> dict[str, Any]:
    """What of a recipe's table are keyword arguments of the loss function."""
    common = {"kind", "weight", "warmup_epochs", "student_layers", "teacher_layers", "segments"}
    return config.model_dump(exclude={*common, *without})


def per_clip(feature: Tensor, segments: int, how: Literal["mean", "fold"]) -> Tensor:
    """A layer's output (B*T, ...) as samples: the mean over each clip's segments (B, ...), or every row of it."""
    if how == "fold":
        return feature
    precise = torch.promote_types(feature.dtype, torch.float32)  # summed in it, without a copy of the frames
    if feature.ndim == 4 and feature.is_contiguous(memory_format=torch.channels_last):
        # In the order of memory: a tenth of the time that summing across channels-last strides takes.
        rows = feature.permute(0, 2, 3, 1)  # (B*T, h, w, c)
        means = rows.reshape(-1, segments, *rows.shape[1:]).mean(dim=1, dtype=precise)  # (B, h, w, c)
        return means.permute(0, 3, 1, 2)
    return feature.reshape(-1, segments, *feature.shape[1:]).mean(dim=1, dtype=precise)  # (B*T, ...) -> (B, ...)


def tapped_layers(config: Loss, model: ClipModel, who: Who) -> tuple[str, ...]:
    """Module paths that a term looks at in one network: the recipe's, or the method's own choice.

    Raises:
        TrainingError: A path that the model does not have.
    """
    named: tuple[str, ...] = getattr(config, f"{who}_layers", ())
    for path in named:
        check_layer(model, path)
    if named:
        return named
    stages = tuple(f"backbone.{path}" for path in model.backbone.stages)
    match config:
        case MgcamLoss() | AttentionLoss() | CcskdLoss():
            return stages
        case FitnetLoss():
            return (stages[1],)
        case SimilarityLoss():
            return (stages[-1],)
        case CorrelationLoss() | RkdLoss():
            return ("backbone",)
        case SoftTargetLoss() | LogitsLoss() | DkdLoss():
            return ()


def _adapters(config: Loss, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
    """The modules a term trains with the student; an empty one when it needs none."""
    rectify = [not layer.negative for layer in theirs]
    match config:
        case MgcamLoss() if config.align == "conv":
            return L.MgcamAdapters(_channels(mine, config), _channels(theirs, config), config.pairs)
        case FitnetLoss():
            return L.HintRegressor(_map(mine[0], config), _map(theirs[0], config), rectify=rectify[0])
        case CcskdLoss():
            return L.CcskdConnectors(_channels(mine, config), _channels(theirs, config), rectify=rectify)
        case CorrelationLoss() if config.variant == "delta":
            return L.CorrelationEmbedding(_size(mine[0]), _size(theirs[0]), config.embedding)
        case _:
            return nn.Module()


def _channels(layers: Sequence[Layer], config: Loss) -> list[int]:
    return [_map(layer, config)[0] for layer in layers]


def _map(layer: Layer, config: Loss) -> tuple[int, int, int]:
    if len(layer.shape) != 3:
        raise TrainingError(
            f"loss '{config.kind}' on a layer of shape {layer.shape}",
            "(channels, height, width)",
            "choose a stage's output",
        )
    return layer.shape[0], layer.shape[1], layer.shape[2]


def _size(layer: Layer) -> int:
    return int(torch.Size(layer.shape).numel())
