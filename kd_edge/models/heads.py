"""Temporal heads: the features of T segments, in order, to class logits.

A head refuses features of another size or number than it was built for (``TrainingError``). Those without relations
read any number of segments: there the model has the number, and refuses clips of another one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.config import DropoutAt, Relations

_LEAST_POOLED = 4
"""Segments that can be halved twice."""

MOST_RELATIONS = 2000
"""Relations of all scales together that an evaluation over all of them may have; 10 segments have 1013."""


class ConsensusHead(nn.Module):
    """TSN: dropout, a linear classifier on every segment, and the mean of the segments' logits.

    The classifier is linear, so it is applied to the mean feature, which is the same and T times cheaper. Order of the
    segments does not matter. Source: Wang et al., "Temporal Segment Networks", ECCV 2016.

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
    """Two temporal convolutions of width 3 over the T features, their mean, and a linear classifier: sees order.

    Batch normalisation follows each convolution: what all clips share, the scene above all, would otherwise dominate
    the features for the first epochs.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping a feature in training, before the convolutions and before the classifier.
        hidden: Channels H of the convolutions.
        dropout_at: ``features`` drops out before the convolutions only.
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
    """Three temporal convolutions of width 5 with max pooling between them: sees order and length of many segments.

    Features are normalised and projected to H; the mean and the maximum over time go to a linear classifier.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping what the classifier sees in training.
        hidden: Channels H of the projection and of the convolutions.
        segments: Number T of segments, at least 4: it is halved twice.

    Raises:
        ConfigError: Fewer than 4 segments.
    """

    def __init__(self, features: int, classes: int, dropout: float, *, hidden: int, segments: int) -> None:
        super().__init__()
        if segments < _LEAST_POOLED:
            raise ConfigError(
                f"temporal 'tcn' with {segments} segments", f"at least {_LEAST_POOLED} segments", "raise segments"
            )
        self.norm = nn.BatchNorm1d(features)
        self.project = _temporal(features, hidden, 1)
        self.convolution1 = _temporal(hidden, hidden, 5)
        self.convolution2 = _temporal(hidden, hidden, 5)
        self.convolution3 = _temporal(hidden, hidden, 5)
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


def _temporal(before: int, after: int, width: int) -> nn.Sequential:
    """A convolution over time that keeps its length, normalised."""
    convolution = nn.Conv1d(before, after, width, padding=width // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(after), nn.ReLU())


class RelationHead(nn.Module):
    """Multi-scale TRN: what k ordered segments say together, summed over the scales k = T, T-1, ... 2.

    Every feature is projected to P; the k projections of a relation are joined and give its logits:
    dropout, Linear(D, P), join k, ReLU, Linear(k P, H), ReLU, dropout, Linear(H, K). A scale's relations share weights.
    In training at most n relations per scale are drawn, for the whole batch, from torch's generator; in evaluation the
    same ones are taken every time, evenly spread over the scale's relations in lexicographic order, or all of them,
    weighted as if n had been drawn, so that the logits keep their size.

    Source: Zhou et al., "Temporal Relational Reasoning in Videos", ECCV 2018. The public code draws relations from
    NumPy's generator, in evaluation too: its figures change from run to run.

    Args:
        features: Feature size D.
        classes: Number of classes K.
        dropout: Probability of dropping a feature in training, before the projection and before the classifiers.
        projected: Size P of the projection.
        hidden: Size H of what the classifiers see.
        segments: Number T of segments, at least 2.
        per_scale: Largest number n of relations per scale.
        evaluate: Which relations an evaluation takes.
        dropout_at: ``features`` drops out before the projection only, as the public code does.

    Raises:
        ConfigError: Fewer than 2 segments, or too many for evaluating all relations.
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
        """Lay the segments of every relation side by side: (B, T, P) and (R, k) -> (B, R, k*P)."""
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
    """Refuse what is not (B, T, size) with T = ``segments``, or any T from ``least`` on.

    Raises:
        TrainingError: Another shape.
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
    """The ``rank``-th of all ascending choices of ``scale`` out of ``segments`` positions, in lexicographic order."""
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
