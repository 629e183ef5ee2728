"""CC: correlation congruence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from kd_edge.train.distil.methods.base import OneLayerMethod, Pair, Positive, size
from kd_edge.train.options import CorrelationVariant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kd_edge.train.teachers.base import Layer, Places, Who


class CorrelationLoss(OneLayerMethod):
    """CC: correlation congruence of the feature vectors, see ``losses.correlation_congruence``.

    Attributes:
        weight: Left out, that of the variant's own code: 100 of ``rbf``, 0.02 of ``delta``.
        variant: ``rbf`` compares Gaussian kernel matrices by their Taylor series; ``delta`` products of neighbouring
            differences between learned embeddings.
        gamma: Width of the kernel.
        order: Last power of the Taylor series.
        embedding: Size of the embeddings (``delta``).
    """

    between_clips: ClassVar[bool] = True
    kind: Literal["cc"] = "cc"
    weight: Positive = 100.0
    variant: CorrelationVariant = "rbf"
    gamma: Positive = 0.4
    order: Annotated[int, Field(ge=1, le=10)] = 2
    embedding: Annotated[int, Field(ge=1, le=4096)] = 128

    @model_validator(mode="before")
    @classmethod
    def _own_weight(cls, values: Any) -> Any:
        """The two forms differ in size by some thousands."""
        if isinstance(values, Mapping) and "weight" not in values and values.get("variant") == "delta":
            return {**values, "weight": 0.02}
        return values

    def own_layers(self, places: Places, who: Who) -> tuple[str, ...]:
        return (places.feature,)

    def adapter(self, mine: Sequence[Layer], theirs: Sequence[Layer]) -> nn.Module:
        from kd_edge.train.losses import CorrelationEmbedding

        if self.variant == "rbf":
            return super().adapter(mine, theirs)
        return CorrelationEmbedding(size(mine[0]), size(theirs[0]), self.embedding)

    def value(self, pair: Pair) -> Tensor:
        from kd_edge.train.losses import correlation_congruence

        return correlation_congruence(
            pair.mine[0],
            pair.theirs[0],
            variant=self.variant,
            gamma=self.gamma,
            order=self.order,
            embedding=pair.adapter if self.variant == "delta" else None,
        )
