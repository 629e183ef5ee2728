"""Whether a student's embeddings collapse: losses on features can be lowered by putting all clips in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_edge.rundir import Spread
from kd_edge.train.losses.geometry import unit

SAME = 0.999
"""Mean cosine of two clips above which they are the same. Rectified features all point one way: where networks learn
well it is 0.8 to 0.95. AnyThermal's detector, for a batch of features without rectifier, takes 0.99."""
ONE_DIMENSION = 1.05
"""Dimensions up to which all clips lie on one line."""
DISTINCT_ON_A_LINE = 3
"""So few classes, or numbers, may lie on a line and be told apart."""


class SpreadMeter:
    """How far the embeddings of an epoch's clips lie apart, added up batch by batch; nothing waits for the device.

    Two clips' likeness is the cosine of their embeddings. How many dimensions these fill is the participation ratio
    ``(sum of v)^2 / sum of v^2`` of the variances v along the principal axes of their directions.
    """

    def __init__(self) -> None:
        self._clips, self._distinct = 0, 0
        self._sums: tuple[Tensor, Tensor] | None = None

    def add(self, embeddings: Tensor, distinct: int) -> None:
        """Count embeddings (B, D).

        Args:
            embeddings: Of a batch.
            distinct: Classes that are to be told apart by them, or numbers that are to be regressed.
        """
        directions = unit(embeddings.detach().double())
        sums = directions.sum(dim=0), directions.T @ directions  # (D,) and (D, D)
        self._sums = sums if self._sums is None else (self._sums[0] + sums[0], self._sums[1] + sums[1])
        self._clips, self._distinct = self._clips + len(directions), distinct

    def of_epoch(self) -> Spread | None:
        """What was counted, which is forgotten; None of fewer than two clips.

        The mean cosine of the n (n - 1) pairs is ``(|sum|^2 - sum of |d|^2) / (n (n - 1))``, d being the directions.
        """
        clips, sums = self._clips, self._sums
        self._clips, self._sums = 0, None
        if clips < 2 or sums is None:
            return None
        total, products = sums
        mean = total / clips
        covariance = products / clips - torch.outer(mean, mean)
        cosine = (total.square().sum() - products.trace()) / (clips * (clips - 1))
        if products.trace() == 0:  # of embeddings that are all 0
            cosine = torch.ones(())
        spread, squares = covariance.trace().clamp(min=0), covariance.square().sum()
        dimensions = spread.square() / squares.clamp(min=1e-24)
        return Spread(cosine=round(float(cosine), 6), dimensions=round(float(dimensions), 3))

    def is_collapsed(self, spread: Spread) -> bool:
        """Whether embeddings lie in one place, or on one line where they should tell more apart."""
        on_a_line = spread.dimensions < ONE_DIMENSION and self._distinct > DISTINCT_ON_A_LINE
        return spread.cosine > SAME or on_a_line
