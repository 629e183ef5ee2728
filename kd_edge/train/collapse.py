"""Detection of embedding collapse: losses on features can be lowered by mapping all clips to one point."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_edge.rundir import Spread
from kd_edge.train.losses.geometry import unit

SAME = 0.999
"""Mean cosine between clips above which they count as equal. Rectified features point in similar directions: for
networks that learn well it is 0.8 to 0.95. AnyThermal's detector uses 0.99, for features without a rectifier."""
ONE_DIMENSION = 1.05
"""Dimensions up to which all clips count as being on one line."""
DISTINCT_ON_A_LINE = 3
"""Number of classes, or of regressed numbers, that can be distinguished on a line."""


class SpreadMeter:
    """Spread of the embeddings of an epoch, accumulated batch by batch without waiting for the device.

    The similarity of two clips is the cosine of their embeddings. The number of dimensions in use is the participation
    ratio ``(sum of v)^2 / sum of v^2`` of the variances v along the principal axes of the directions.
    """

    def __init__(self) -> None:
        self._clips, self._distinct = 0, 0
        self._sums: tuple[Tensor, Tensor] | None = None

    def add(self, embeddings: Tensor, distinct: int) -> None:
        """Add the embeddings of a batch.

        Args:
            embeddings: (B, D).
            distinct: Number of classes to distinguish, or of numbers to regress.
        """
        directions = unit(embeddings.detach().double())
        sums = directions.sum(dim=0), directions.T @ directions  # (D,) and (D, D)
        self._sums = sums if self._sums is None else (self._sums[0] + sums[0], self._sums[1] + sums[1])
        self._clips, self._distinct = self._clips + len(directions), distinct

    def of_epoch(self) -> Spread | None:
        """Return the spread since the last call and reset; None for fewer than two clips.

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
        if products.trace() == 0:  # all embeddings are 0
            cosine = torch.ones(())
        spread, squares = covariance.trace().clamp(min=0), covariance.square().sum()
        dimensions = spread.square() / squares.clamp(min=1e-24)
        return Spread(cosine=round(float(cosine), 6), dimensions=round(float(dimensions), 3))

    def is_collapsed(self, spread: Spread) -> bool:
        """Whether embeddings are at one point, or on one line although they should distinguish more."""
        on_a_line = spread.dimensions < ONE_DIMENSION and self._distinct > DISTINCT_ON_A_LINE
        return spread.cosine > SAME or on_a_line
