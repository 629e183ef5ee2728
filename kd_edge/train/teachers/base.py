"""What losses observe of a network that classifies a batch of clips, and the interface of teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from kd_edge.data import Dataset
from kd_edge.errors import TrainingError
from kd_edge.models.layers import Layer as NamedLayer
from kd_edge.train.collapse import SpreadMeter
from kd_edge.train.losses.labels import cross_entropy
from kd_edge.train.options import Segments

if TYPE_CHECKING:
    from kd_edge.train.inputs.clips import Batch


class Tap(NamedTuple):
    """A layer observed by a loss.

    Attributes:
        path: Module path; of a sensor teacher one of its places (``block1`` to ``block5``, ``fc1``, ``fc2``).
        segments: ``mean`` sees its mean over a clip's segments (B, ...), ``fold`` every frame (B*T, ...).
    """

    path: str
    segments: Segments


class Observation(NamedTuple):
    """Outputs of one network for a batch of clips.

    Attributes:
        logits: (B, K).
        taps: Only what a term asked for.
        ablated: (1, K) logits of a clip without content, where a term compares with it.
        present: (B,) bool, which clips the network could see; None for all.
        attention: (B,) weight of this teacher among several, in [0, 1]; None where there is but one.
        maps: (B, h, w) each, made of the taps, where a term compares them with several teachers'.
    """

    logits: Tensor
    taps: Mapping[Tap, Tensor]
    ablated: Tensor | None = None
    present: Tensor | None = None
    attention: Tensor | None = None
    maps: Sequence[Tensor] = ()

    @property
    def of_blank(self) -> Tensor:
        """(1, K) logits of a clip without content.

        Raises:
            TrainingError: The network was not shown one.
        """
        if self.ablated is None:
            raise TrainingError("an observation without a blank clip's logits", "both", "observe with ablate=True")
        return self.ablated

    def of(self, rows: Tensor) -> Observation:
        """The part of some clips, by a (B,) bool mask; segments folded into the batch follow their clip."""
        taps = {tap: values[_folded(rows, len(values))] for tap, values in self.taps.items()}
        attention = None if self.attention is None else self.attention[rows]
        return Observation(self.logits[rows], taps, self.ablated, None, attention, [m[rows] for m in self.maps])


def _folded(rows: Tensor, count: int) -> Tensor:
    """A mask (B,) of clips as one of what there are ``count`` of: clips, or their segments (B*T,)."""
    return rows if count == len(rows) else rows.repeat_interleave(count // len(rows))


Shape = tuple[int, ...]


Who = Literal["student", "teacher"]


class Layer(NamedTuple):
    """Properties of a tapped layer, known before training.

    Attributes:
        shape: What it puts out for one frame.
        negative: Whether its output has negative values; without, it ends in a ReLU.
    """

    shape: Shape
    negative: bool


@dataclass(frozen=True)
class Places:
    """Default layers of a network that losses observe.

    Attributes:
        stages: The outputs of its four stages, the earliest first.
        blocks: Five layers that correspond to the five blocks of a VGG.
        feature: The feature vector before the classifier.
        semantic: The feature that is compared with another network's or with a class vector.
        check: Raises a ``TrainingError`` for a path that the network does not have.
    """

    stages: tuple[str, ...]
    blocks: tuple[str, ...]
    feature: str
    semantic: str
    check: Callable[[str], None]


class Teacher(nn.Module, ABC):
    """One or several networks that teach together.

    Its weights are a run's ``teachers/teacher.safetensors``, by these names.

    Another kind is a class like this one, the class of its settings in ``train.recipe.stages``, and a line in
    ``train.networks.TEACHERS``.

    Attributes:
        count: Number of networks that teach.
        attends: Whether they weigh one another, sample by sample.
        has_segments: Whether they see a clip as segments, whose features can be told apart.
        names_classes: Whether their logits say anything.
    """

    count: int = 1
    attends: bool = False
    has_segments: bool = True
    names_classes: bool = True

    @classmethod
    @abstractmethod
    def build(cls, config: Any, segments: int, classes: int, dataset: Dataset | None) -> Teacher:
        """Create the networks with their initial weights.

        Args:
            config: The recipe's ``[teacher]``, of the kind that belongs to this class.
            segments: T.
            classes: Number of classes K.
            dataset: What they will see; None makes the same layers with random weights, to list them.
        """

    @property
    @abstractmethod
    def places(self) -> Places:
        """The layers that losses observe."""

    @abstractmethod
    def layers(self, shape: Shape) -> list[NamedLayer]:
        """Every layer of one of the networks that a loss may name, with its output for an input (1, *shape)."""

    @abstractmethod
    def observe(self, inputs: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
        """Outputs of each network for a batch; with ``ablate`` also for an input without content."""

    def learner(self, config: Any, class_vectors: Tensor | None, class_weights: Tensor | None = None) -> LabelLearner:
        """Its training objective: cross-entropy on the labels.

        Args:
            config: The recipe's ``[teacher]``.
            class_vectors: (K, D) of the class names, where the recipe has some.
            class_weights: (K,) of the classes in the cross-entropy; None takes 1.

        Raises:
            TrainingError: It cannot be trained like that.
        """
        return LabelLearner(self, config.label_smoothing, class_weights)

    def evaluate(self, loader: Iterable[Batch], labels: Sequence[str], device: torch.device) -> dict[str, Any]:
        """Summary figures specific to this kind of teacher, over a loader's clips.

        Args:
            loader: Clips in order, as the teacher sees them; may be read more than once.
            labels: Class names.
            device: Where to evaluate.
        """
        return {}


class LabelLearner(nn.Module):
    """A network trained on the labels alone, without a teacher.

    Args:
        model: The network to train.
        label_smoothing: Share of a label that the cross-entropy spreads over all classes.
        class_weights: (K,) of the classes in the cross-entropy; None takes 1. No other loss has them.

    Attributes:
        terms: Distillation terms by name, with what they train beside the network; dropped at export.
        student_layers: Layers of the network that losses look at, with what was found of them.
        teacher_layers: Layers of its teacher that losses look at, with what was found of them.
        teacher_taps: What ``teach`` has to look at.
        ablates: Whether ``teach`` has to look at an input without content too.
        answers: Whether its second output is logits, of which it can be told how many are right.
        spread: Measures the network's embeddings in training; None where no loss looks at them.
        regresses: Whether it takes dense targets, (B, T, M) of the segments, as ``targets``.
    """

    answers = True
    regresses: bool = False
    spread: SpreadMeter | None = None

    class_weights: Tensor | None

    def __init__(self, model: nn.Module, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.terms = nn.ModuleDict()
        self.student_layers: Mapping[str, Layer] = {}
        self.teacher_layers: Mapping[str, Layer] = {}
        self.teacher_taps: tuple[Tap, ...] = ()
        self.ablates = False

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (B, K) on labels (B,), smoothed and weighted as the stage says."""
        return cross_entropy(logits, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights)

    def weights(self, epoch: int) -> dict[str, float]:
        """Factors of the distillation terms in the total loss, by name, in an epoch counted from 1."""
        return {}

    def forward(
        self, inputs: Tensor, labels: Tensor, seen: Sequence[Observation] | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            inputs: What the network sees: clips (B, T, C, S, S), or signals (B, m, 3, n).
            labels: (B,) int64.
            seen: The teachers' observations of the same samples; needed when there are distillation terms.
            epoch: Counted from 1, for warm-ups and schedules.

        Returns:
            Scalars by name (``ce`` and ``total`` among them) and the logits (B, K).
        """
        logits = self.model(inputs)
        value = self.cross_entropy(logits, labels)
        return {"ce": value, "total": value}, logits


def per_clip(feature: Tensor, segments: int, how: Segments) -> Tensor:
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
