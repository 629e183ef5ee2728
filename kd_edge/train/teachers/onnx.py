"""A frozen encoder as teacher, represented by its cached embeddings."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from kd_edge.data import Dataset
from kd_edge.errors import TrainingError
from kd_edge.models.layers import Layer as NamedLayer
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig
from kd_edge.train.teachers.base import Observation, Places, Shape, Tap, Teacher

EMBEDDING = "embedding"
"""Its one layer."""


class OnnxTeacher(Teacher):
    """Cached embeddings in the place of a teacher: no weights, no class logits.

    Its input is what ``train.inputs.embeddings`` kept: (B, T, D) float32, NaN where a clip's segment has none.

    Args:
        classes: Number of classes K, of which it knows nothing.
    """

    names_classes = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._classes = classes

    @classmethod
    def build(cls, config: OnnxTeacherConfig, segments: int, classes: int, dataset: Dataset | None) -> OnnxTeacher:
        """See ``Teacher.build``."""
        return cls(classes)

    @property
    def places(self) -> Places:
        """The embedding, for every kind of layer."""
        return Places((EMBEDDING,) * 4, (EMBEDDING,) * 5, EMBEDDING, EMBEDDING, self._check_place)

    def layers(self, shape: Shape) -> list[NamedLayer]:
        """The embedding of a clip (T, D)."""
        return [NamedLayer(EMBEDDING, "encoder", (1, *shape))]

    def observe(self, inputs: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
        """Embeddings as a network's features: the mean over the segments that have one, or segment by segment.

        A clip counts where any of its segments has an embedding, for a loss on segments where all have. Logits are NaN:
        no loss may look at them, see ``Method.needs_answers``.
        """
        there = ~inputs.isnan().any(dim=2)  # (B, T)
        known = torch.where(there[..., None], inputs, 0.0)
        seen: dict[Tap, Tensor] = {}
        present = there.any(dim=1)
        for tap in taps:
            if tap.segments == "fold":
                seen[tap] = known.flatten(0, 1)  # (B, T, D) -> (B*T, D)
                present = present & there.all(dim=1)
            else:
                seen[tap] = known.sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)
        nothing = inputs.new_full((len(inputs), self._classes), torch.nan)
        return (Observation(nothing, seen, nothing[:1] if ablate else None, None if present.all() else present),)

    def _check_place(self, path: str) -> None:
        if path != EMBEDDING:
            raise TrainingError(
                f"an encoder has no layer '{path}'", f"'{EMBEDDING}', the only one", "change teacher_layers"
            )
