"""GSDM: graph-guided semantically discriminative mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from kd_edge.errors import TrainingError
from kd_edge.train.distil.methods.base import FeatureMethod, Pair
from kd_edge.train.options import Ablation, ClassEmbedding, Reduction, Slope, Weighting

if TYPE_CHECKING:
    from torch import Tensor

    from kd_edge.train.teachers.base import Observation, Places, Who


class GsdmLoss(FeatureMethod):
    """GSDM: graph-guided semantically discriminative maps of five layers, see ``losses.gsdm``; ``weight`` is beta.

    Attributes:
        slope: How Eq. 15 divides: ``official`` as the equation with negative values cut off, ``stable`` by a
            denominator kept away from 0, which leaves a quarter of the samples with a negative weight and so without a
            map (docs/adr/012), ``norm`` as a ratio of norms.
        embedding: Vector of a sample's class: ``hard`` that of the likeliest, ``soft`` the expected one.
        weighting: How a layer's channels are weighed: ``scalar`` all alike, ``channel`` each by its share of Eq. 15's
            vector.
        reduction: Over the elements of a map.
        ablation: What a student's ablated input is: ``zeros`` of the normalised input, or ``black`` pixels.
    """

    needs_vectors: ClassVar[bool] = True
    needs_answers: ClassVar[bool] = True
    kind: Literal["gsdm"] = "gsdm"
    slope: Slope = "official"
    embedding: ClassEmbedding = "hard"
    weighting: Weighting = "scalar"
    reduction: Reduction = "sum"
    ablation: Ablation = "zeros"

    @property
    def blank(self) -> Ablation:
        return self.ablation

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        if self.student_layers or self.teacher_layers:
            raise TrainingError(
                f"loss 'gsdm' with {'student' if self.student_layers else 'teacher'}_layers alone",
                "the layers of both networks, or of neither",
                f"add {who}_layers",
            )
        return places.blocks

    def prepare(self, mine: Observation, features: Sequence[Tensor], class_vectors: Tensor | None) -> Observation:
        """With the student's maps, which are the same for every teacher."""
        return mine._replace(maps=self._maps(mine, features, class_vectors))

    def value(self, pair: Pair) -> Tensor:
        import torch

        from kd_edge.train.losses import map_distance

        with torch.no_grad():
            theirs = self._maps(pair.teacher, pair.theirs, pair.class_vectors)
        return map_distance(pair.student.maps, theirs, reduction=self.reduction)

    def _maps(self, seen: Observation, features: Sequence[Tensor], class_vectors: Tensor | None) -> list[Tensor]:
        """Semantically discriminative maps (b, h, w) of a network's layers."""
        from kd_edge.train.losses import semantic_maps

        if class_vectors is None:
            raise TrainingError("loss 'gsdm' without vectors of the class names", "(K, D)", "give class_vectors")
        return semantic_maps(
            features,
            seen.logits,
            seen.of_blank,
            class_vectors,
            slope=self.slope,
            embedding=self.embedding,
            weighting=self.weighting,
        )
