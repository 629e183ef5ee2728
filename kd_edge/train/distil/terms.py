"""One distillation term: a loss of the recipe, its adapters, and its value over all teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kd_edge.train.distil.methods import Method, Pair
from kd_edge.train.losses import dense_regression
from kd_edge.train.recipe.student_stages import DenseLoss
from kd_edge.train.teachers.base import Layer, Observation, Places, Tap, Teacher
from kd_edge.types import Float32


class Term(nn.Module):
    """A configured loss between a student and its teachers, with its adapters (dropped at export).

    With several teachers the value is the mean (Eq. 17, 23 and 24 of the SAKDN paper), for each over the clips in which
    it is present. Each teacher has its own adapter, unless the method shares one.

    Args:
        method: The recipe's table.
        places: The student's layers.
        teacher: The teacher.
        layers: Tapped layers by path, of the student and of the teacher (of one network if it has several).
        epochs: Length of the run, for methods with a schedule.
        class_vectors: (K, D) vectors of the class names, for methods that use them.

    Raises:
        TrainingError: The layers cannot be paired, or the teacher lacks what the method needs.
    """

    class_vectors: Tensor | None

    def __init__(
        self,
        method: Method,
        places: Places,
        teacher: Teacher,
        layers: tuple[Mapping[str, Layer], Mapping[str, Layer]],
        epochs: int,
        class_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.epochs = epochs
        self.student_taps = method.taps(places, "student")
        self.teacher_taps = method.taps(teacher.places, "teacher")
        mine = [layers[0][tap.path] for tap in self.student_taps]
        theirs = [layers[1][tap.path] for tap in self.teacher_taps]
        method.check(teacher)
        made = [method.adapter(mine, theirs) for _ in range(1 if method.shares_adapter else teacher.count)]
        self.adapters = nn.ModuleList(made * teacher.count if method.shares_adapter else made)
        self.register_buffer("class_vectors", class_vectors, persistent=False)

    def forward(self, mine: Observation, seen: Sequence[Observation], labels: Tensor, epoch: int) -> Tensor:
        """Compute the unweighted value, a scalar; no gradient flows into the teachers' observations."""
        method, least = self.method, 2 if self.method.between_clips else 1
        value, shares = mine.logits.new_zeros((), dtype=torch.float32), 0.0
        mine = method.prepare(mine, _features(mine, self.student_taps), self.class_vectors)
        for adapter, teacher in zip(self.adapters, seen, strict=True):
            present = teacher.present
            if present is None or bool(present.all()):
                value, shares = value + self.between(adapter, mine, teacher, labels, epoch), shares + 1
            elif int(present.sum()) >= least:
                share = float(present.float().mean())
                part = self.between(adapter, mine.of(present), teacher.of(present), labels[present], epoch)
                value, shares = value + share * part, shares + share
        return value if method.adds_teachers or shares == 0 else value / shares

    def between(self, adapter: nn.Module, mine: Observation, seen: Observation, labels: Tensor, epoch: int) -> Tensor:
        """Compute the term between the student and one teacher."""
        features = _features(mine, self.student_taps), _features(seen, self.teacher_taps)
        return self.method.value(Pair(mine, seen, *features, adapter, labels, epoch, self.epochs, self.class_vectors))


class DenseTerm(nn.Module):
    """Dense loss in addition to the labels: regresses targets from the student's feature of each segment.

    Args:
        loss: The recipe's table.
        weights: (M,) float32 weights of the targets.
        feature_size: Input size D of a linear layer that is trained and dropped at export; None if the student itself
            regresses the targets, as the last elements of its feature.
    """

    def __init__(self, loss: DenseLoss, weights: Float32, feature_size: int | None) -> None:
        super().__init__()
        self.loss = loss
        self.size = len(weights)
        self.regressor = nn.Identity() if feature_size is None else nn.Linear(feature_size, self.size)
        self.register_buffer("number_weights", torch.from_numpy(weights), persistent=False)

    def forward(self, feature: Tensor, targets: Tensor) -> Tensor:
        """Compute the unweighted value from features (B*T, D) and targets (B, T, M)."""
        regressed = self.regressor(feature)[:, -self.size :]
        return dense_regression(regressed, targets.flatten(0, 1), weights=self.get_buffer("number_weights"))


def _features(seen: Observation, taps: Sequence[Tap]) -> list[Tensor]:
    return [seen.taps[tap] for tap in taps]
