"""One distillation term: which layers it looks at, the adapters it trains, and its value over all teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.models.layers import check_layer
from kd_edge.train import losses as L
from kd_edge.train.recipe.losses import (
    BETWEEN_CLIPS,
    AttentionLoss,
    CcskdLoss,
    CorrelationLoss,
    DkdLoss,
    FitnetLoss,
    GsdmLoss,
    LogitsLoss,
    Loss,
    MgcamLoss,
    RkdLoss,
    SemanticLoss,
    SimilarityLoss,
    SoftTargetLoss,
)
from kd_edge.train.teachers.base import Layer, Observation, Tap, Who
from kd_edge.train.teachers.images import five_stages, image_stages, semantic_layer
from kd_edge.train.teachers.sensors import BLOCKS, SensorTeacher

Teacher = ClipModel | SensorTeacher


class Term(nn.Module):
    """A configured loss between a student and its teachers, with the adapters it trains (dropped at export).

    Of several teachers the value is the mean (Eq. 17, 23 and 24 of the SAKDN paper), each over the clips it could see.
    Each teacher has adapters of its own, except in the semantic loss.

    Args:
        config: The recipe's table.
        student: For its layers.
        teacher: Likewise.
        layers: Every tapped layer by path: the student's and the teacher's (one network's, where there are several).
        epochs: Length of the run, for terms on a schedule.
        class_vectors: (K, D) of the class names, for terms that compare with them.

    Raises:
        TrainingError: The networks' layers do not pair up.
    """

    def __init__(
        self,
        config: Loss,
        student: ClipModel,
        teacher: Teacher,
        layers: tuple[Mapping[str, Layer], Mapping[str, Layer]],
        epochs: int,
        class_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        how: Literal["mean", "fold"] = getattr(config, "segments", "mean")
        self.student_taps = [Tap(path, how) for path in tapped_layers(config, student, "student")]
        self.teacher_taps = [Tap(path, how) for path in tapped_layers(config, teacher, "teacher")]
        mine = [layers[0][tap.path] for tap in self.student_taps]
        theirs = [layers[1][tap.path] for tap in self.teacher_taps]
        _check_teacher(config, teacher)
        count = teachers_in(teacher)
        if isinstance(config, SemanticLoss):  # Eq. 24 has one h^S, which comes near every teacher's h
            self.adapters = nn.ModuleList([_adapters(config, mine, theirs)] * count)
        else:
            self.adapters = nn.ModuleList(_adapters(config, mine, theirs) for _ in range(count))
        self.schedule = L.ccskd_schedule(config.schedule, epochs=epochs) if isinstance(config, CcskdLoss) else None
        self.register_buffer("class_vectors", class_vectors, persistent=False)

    @property
    def ablates(self) -> bool:
        """Whether it compares with what the networks make of a clip without content."""
        return isinstance(self.config, GsdmLoss)

    def weight(self, epoch: int) -> float:
        """Factor in the total loss in an epoch, counted from 1."""
        warmup = self.config.warmup_epochs
        return self.config.weight * (min(epoch / warmup, 1.0) if warmup else 1.0)

    def forward(self, mine: Observation, seen: Sequence[Observation], labels: Tensor, epoch: int) -> Tensor:
        """Value of the term before its weight, a scalar; no gradient flows into the teachers' observations."""
        least = 2 if self.config.kind in BETWEEN_CLIPS else 1
        value, shares = mine.logits.new_zeros((), dtype=torch.float32), 0.0
        if isinstance(self.config, GsdmLoss):  # the student's maps are the same for every teacher
            mine = mine._replace(maps=self._maps(mine, self.student_taps))
        for adapters, teacher in zip(self.adapters, seen, strict=True):
            present = teacher.present
            if present is None or bool(present.all()):
                value, shares = value + self._between(adapters, mine, teacher, labels, epoch), shares + 1
            elif int(present.sum()) >= least:
                share = float(present.float().mean())
                part = self._between(adapters, mine.of(present), teacher.of(present), labels[present], epoch)
                value, shares = value + share * part, shares + share
        weighed = isinstance(self.config, SoftTargetLoss) and self.config.teachers == "attention"
        return value if weighed or shares == 0 else value / shares

    def _between(self, adapters: nn.Module, mine: Observation, seen: Observation, labels: Tensor, epoch: int) -> Tensor:
        """The term between the student and one teacher."""
        config = self.config
        students = [mine.taps[tap] for tap in self.student_taps]
        teachers = [seen.taps[tap] for tap in self.teacher_taps]
        match config:
            case SoftTargetLoss():
                weights = seen.attention if config.teachers == "attention" else None
                return L.soft_target(mine.logits, seen.logits, temperature=config.temperature, weights=weights)
            case LogitsLoss():
                return L.logit_mse(mine.logits, seen.logits)
            case DkdLoss():
                return L.dkd(mine.logits, seen.logits, labels, **_options(config))
            case MgcamLoss():
                projections = adapters if isinstance(adapters, L.MgcamAdapters) else None
                return L.mgcam(students, teachers, adapters=projections, **_options(config))
            case FitnetLoss():
                return L.hint_mse(adapters(students[0]), teachers[0])
            case AttentionLoss():
                return L.attention_transfer(students, teachers, variant=config.variant)
            case SimilarityLoss():
                return L.similarity_preserving(students[0], teachers[0])
            case CorrelationLoss():
                embedding = adapters if isinstance(adapters, L.CorrelationEmbedding) else None
                options = _options(config, "embedding")
                return L.correlation_congruence(students[0], teachers[0], embedding=embedding, **options)
            case RkdLoss():
                distance, angle = config.distance_weight, config.angle_weight
                zero = students[0].new_zeros((), dtype=torch.float32)
                return (distance * L.rkd_distance(students[0], teachers[0]) if distance else zero) + (
                    angle * L.rkd_angle(students[0], teachers[0]) if angle else zero
                )
            case CcskdLoss():
                assert isinstance(adapters, L.CcskdConnectors)
                return L.ccskd(
                    students, teachers, mine.logits, seen.logits, labels,
                    epoch=epoch, connectors=adapters, schedule=self.schedule, temperature=config.temperature,
                )  # fmt: skip
            case GsdmLoss():
                with torch.no_grad():
                    theirs = self._maps(seen, self.teacher_taps)
                return L.map_distance(mine.maps, theirs, reduction=config.reduction)
            case SemanticLoss():
                return L.semantic_preserving(adapters(students[0]), teachers[0], reduction=config.reduction)

    def _maps(self, seen: Observation, taps: Sequence[Tap]) -> list[Tensor]:
        """Semantically discriminative maps (b, h, w) of a network's layers."""
        assert seen.ablated is not None
        features, vectors = [seen.taps[tap] for tap in taps], self.get_buffer("class_vectors")
        options = _options(self.config, "ablation", "reduction")
        return L.semantic_maps(features, seen.logits, seen.ablated, vectors, **options)


def teachers_in(teacher: Teacher) -> int:
    """Number of networks that teach."""
    return len(teacher.sensors) if isinstance(teacher, SensorTeacher) else 1


def _check_teacher(config: Loss, teacher: Teacher) -> None:
    """Refuse what a term asks of teachers that these are not."""
    if not isinstance(teacher, SensorTeacher):
        if isinstance(config, SoftTargetLoss) and config.teachers == "attention":
            raise TrainingError(
                "soft_target with teachers = 'attention' and a single teacher",
                "several sensors, and [teacher.model] attention = true",
                "set teachers = 'mean'",
            )
        return
    if isinstance(config, SoftTargetLoss) and config.teachers == "attention" and not teacher.attends:
        raise TrainingError(
            "soft_target with teachers = 'attention', and teachers without attention",
            "[teacher.model] attention = true",
            "set teacher.model.attention=true, or teachers = 'mean'",
        )
    if getattr(config, "segments", "mean") == "fold":
        raise TrainingError(
            f"loss '{config.kind}' with segments = 'fold' and sensors as teachers, which have no segments",
            "segments = 'mean'",
            "change segments",
        )


def _options(config: Loss, *without: str) -> dict[str, Any]:
    """What of a recipe's table are keyword arguments of the loss function."""
    common = {"kind", "weight", "warmup_epochs", "student_layers", "teacher_layers", "segments"}
    return config.model_dump(exclude={*common, *without})


def tapped_layers(config: Loss, model: Teacher, who: Who) -> tuple[str, ...]:
    """Module paths that a term looks at in one network: the recipe's, or the method's own choice.

    Raises:
        TrainingError: A path that the model does not have.
    """
    named: tuple[str, ...] = getattr(config, f"{who}_layers", ())
    for path in named:
        model.check_place(path) if isinstance(model, SensorTeacher) else check_layer(model, path)
    if named:
        return named
    stages = model.stages if isinstance(model, SensorTeacher) else image_stages(model)
    feature = model.feature if isinstance(model, SensorTeacher) else "backbone"
    match config:
        case MgcamLoss() | AttentionLoss() | CcskdLoss():
            return stages
        case FitnetLoss():
            return (stages[1],)
        case SimilarityLoss():
            return (stages[-1],)
        case CorrelationLoss() | RkdLoss():
            return (feature,)
        case GsdmLoss():
            if config.student_layers or config.teacher_layers:
                raise TrainingError(
                    f"loss 'gsdm' with {'student' if config.student_layers else 'teacher'}_layers alone",
                    "the layers of both networks, or of neither",
                    f"add {who}_layers",
                )
            return BLOCKS if isinstance(model, SensorTeacher) else five_stages(model)
        case SemanticLoss():
            return (semantic_layer(model),) if isinstance(model, ClipModel) else (feature,)
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
        case SemanticLoss() if mine[0].shape != theirs[0].shape:
            return nn.Sequential(nn.Flatten(1), nn.Linear(_size(mine[0]), _size(theirs[0])))
        case _:
            return nn.Identity()


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
