"""Temporal heads, which map the ordered features of T segments to class logits.

A head raises ``TrainingError`` for features of a size or number that it was not built for. Heads without relations
accept any number of segments; in their case the clip model checks the number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.config import DropoutAt, Relations

_LEAST_POOLED = 4
"""Smallest number of segments that can be halved twice."""

MOST_RELATIONS = 2000
"""Upper limit for the relations of all scales in an evaluation over all of them; 10 segments have 1013."""


class ConsensusHead(nn.Module):
    """TSN: dropout, a linear classifier on every segment, and the mean of the segments' logits.

    The classifier is linear, so it is applied to the mean feature, which is equivalent and T times cheaper. The order
    of the segments does not matter. Source: Wang et al., "Temporal Segment Networks", ECCV 2016.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping a feature in training.
    """

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, K)."""
        _check(features, self.classifier.in_features)
        logits: Tensor = self.classifier(self.dropout(features).mean(dim=1))
        return logits


class TemporalConvolutionHead(nn.Module):
    """Two temporal convolutions of width 3 over the T features, their mean, and a linear classifier.

    The result depends on the order of the segments. Batch normalisation follows each convolution, because what all
    clips have in common, mainly the scene, would otherwise dominate the features for the first epochs.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping a feature in training, before the convolutions and before the classifier.
        hidden: Channels H of the convolutions.
        dropout_at: ``features`` applies dropout before the convolutions only.
    """

    def __init__(
        self, features: int, classes: int, dropout: float, hidden: int, *, dropout_at: DropoutAt = "all"
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self._drops_twice = dropout_at == "all"
        self.convolution1 = nn.Conv1d(features, hidden, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm1d(hidden)
        self.convolution2 = nn.Conv1d(hidden, hidden, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm1d(hidden)
        self.activation = nn.ReLU()
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, K)."""
        _check(features, self.convolution1.in_channels)
        series = self.dropout(features).transpose(1, 2)  # (B, D, T)
        series = self.activation(self.norm1(self.convolution1(series)))  # (B, H, T)
        series = self.activation(self.norm2(self.convolution2(series)))
        mean = series.mean(dim=2)
        logits: Tensor = self.classifier(self.dropout(mean) if self._drops_twice else mean)
        return logits


class PooledConvolutionHead(nn.Module):
    """Three temporal convolutions of width 5 with max pooling between them, for many segments.

    The result depends on order and duration. Features are normalised and projected to H; mean and maximum over time are
    the input of a linear classifier.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping an input of the classifier in training.
        hidden: Channels H of the projection and of the convolutions.
        segments: Number T of segments, at least 4, because it is halved twice.

    Raises:
        ConfigError: There are fewer than 4 segments.
    """

    def __init__(self, features: int, classes: int, dropout: float, *, hidden: int, segments: int) -> None:
        super().__init__()
        if segments < _LEAST_POOLED:
            raise ConfigError(
                f"temporal 'tcn' with {segments} segments", f"at least {_LEAST_POOLED} segments", "raise segments"
            )
        self.norm = nn.BatchNorm1d(features)
        self.project = _temporal_convolution(features, hidden, 1)
        self.convolution1 = _temporal_convolution(hidden, hidden, 5)
        self.convolution2 = _temporal_convolution(hidden, hidden, 5)
        self.convolution3 = _temporal_convolution(hidden, hidden, 5)
        self.pool = nn.MaxPool1d(2)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, K)."""
        _check(features, self.norm.num_features, least=_LEAST_POOLED)
        series = self.project(self.norm(features.transpose(1, 2)))  # (B, H, T)
        series = self.pool(self.convolution1(series))  # (B, H, T // 2)
        series = self.pool(self.convolution2(series))  # (B, H, T // 4)
        series = self.convolution3(series)
        seen = torch.cat([series.mean(dim=2), series.amax(dim=2)], dim=1)  # (B, 2 H)
        logits: Tensor = self.classifier(self.dropout(seen))
        return logits


def _temporal_convolution(before: int, after: int, width: int) -> nn.Sequential:
    """A convolution over time that keeps the length, with batch norm and ReLU."""
    convolution = nn.Conv1d(before, after, width, padding=width // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(after), nn.ReLU())


class RelationHead(nn.Module):
    """Multi-scale TRN: logits of relations of k ordered segments, summed over the scales k = T, T-1, ... 2.

    Every feature is projected to P; the k projections of a relation are concatenated and yield its logits:
    dropout, Linear(D, P), join k, ReLU, Linear(k P, H), ReLU, dropout, Linear(H, K). A scale's relations share weights.
    In training at most n relations per scale are drawn, for the whole batch, from torch's generator. Evaluation always
    uses the same relations, evenly spread over the scale's relations in lexicographic order, or all of them, weighted
    as if n had been drawn, so that the logits keep their magnitude.

    Source: Zhou et al., "Temporal Relational Reasoning in Videos", ECCV 2018. The public code draws relations from
    NumPy's generator, in evaluation too, so that its results vary from run to run.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping a feature in training, before the projection and before the classifiers.
        projected: Size P of the projection.
        hidden: Size H of the classifiers' input.
        segments: Number T of segments, at least 2.
        per_scale: Largest number n of relations per scale.
        evaluate: Relations used in evaluation.
        dropout_at: ``features`` applies dropout before the projection only, as the public code does.

    Raises:
        ConfigError: There are fewer than 2 segments, or too many for evaluating all relations.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        dropout: float,
        *,
        projected: int,
        hidden: int,
        segments: int,
        per_scale: int,
        evaluate: Relations = "fixed",
        dropout_at: DropoutAt = "all",
    ) -> None:
        super().__init__()
        scales = range(segments, 1, -1)
        count = sum(math.comb(segments, k) for k in scales)
        if segments < 2:
            raise ConfigError("temporal 'trn' with 1 segment", "at least 2 segments", "raise segments")
        if evaluate == "all" and count > MOST_RELATIONS:
            raise ConfigError(
                f"all {count} relations of {segments} segments",
                f"at most {MOST_RELATIONS} (10 segments)",
                "set relations to 'fixed', or lower segments",
            )
        self.dropout = nn.Dropout(dropout)
        self._drops_twice = dropout_at == "all"
        self.project = nn.Linear(features, projected)
        self.relate = nn.ModuleList(nn.Linear(k * projected, hidden) for k in scales)
        self.classifiers = nn.ModuleList(nn.Linear(hidden, classes) for _ in scales)
        self.activation = nn.ReLU()
        self._segments, self._scales = segments, tuple(scales)
        self._drawn = tuple(min(per_scale, math.comb(segments, k)) for k in scales)
        for scale, drawn in zip(scales, self._drawn, strict=True):
            every = math.comb(segments, scale)
            chosen = range(every) if evaluate == "all" else [(2 * i + 1) * every // (2 * drawn) for i in range(drawn)]
            relations = torch.tensor([relation(segments, scale, rank) for rank in chosen])  # (R, k)
            self.register_buffer(f"fixed{scale}", relations, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, K)."""
        _check(features, self.project.in_features, segments=self._segments)
        projected = self.project(self.dropout(features))  # (B, T, P)
        return torch.stack([self._of_scale(i, projected) for i in range(len(self._scales))]).sum(dim=0)

    def join(self, projected: Tensor, relations: Tensor) -> Tensor:
        """Concatenate the segments of every relation: (B, T, P) and (R, k) -> (B, R, k*P)."""
        return projected[:, relations].flatten(2)

    def _of_scale(self, position: int, projected: Tensor) -> Tensor:
        relations = self._relations(position)  # (R, k)
        joined = self.join(projected, relations)
        hidden = self.activation(self.relate[position](self.activation(joined)))  # (B, R, H)
        hidden = self.dropout(hidden) if self._drops_twice else hidden
        logits: Tensor = self.classifiers[position](hidden).mean(dim=1)  # (B, K)
        return logits * self._drawn[position]

    def _relations(self, position: int) -> Tensor:
        scale, drawn = self._scales[position], self._drawn[position]
        fixed = self.get_buffer(f"fixed{scale}")
        if not self.training:
            return fixed
        every = math.comb(self._segments, scale)
        ranks = torch.randperm(every)[:drawn] if every <= MOST_RELATIONS else torch.randint(every, (drawn,))
        return torch.tensor([relation(self._segments, scale, r) for r in ranks.tolist()], device=fixed.device)


def _check(features: Tensor, size: int, *, segments: int | None = None, least: int = 1) -> None:
    """Check that features have the shape (B, T, size) with T = ``segments``, or T >= ``least``.

    Raises:
        TrainingError: The shape differs.
    """
    right = features.ndim == 3 and features.shape[2] == size
    if right and (features.shape[1] == segments if segments is not None else features.shape[1] >= least):
        return
    number = f"{least} or more" if segments is None else f"{segments}"
    raise TrainingError(
        f"features of shape {tuple(features.shape)}",
        f"(batch, {number} segments, {size}), as the head was built for",
        "change segments, or build the model for them",
    )


def relation(segments: int, scale: int, rank: int) -> tuple[int, ...]:
    """Return the ``rank``-th combination of ``scale`` out of ``segments`` positions, in lexicographic order."""
    chosen: list[int] = []
    position = 0
    while len(chosen) < scale:
        starting_here = math.comb(segments - position - 1, scale - len(chosen) - 1)
        if rank < starting_here:
            chosen.append(position)
        else:
            rank -= starting_here
        position += 1
    return tuple(chosen)
