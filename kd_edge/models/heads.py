"""Temporal heads: the features of T segments, in order, to class logits."""

from __future__ import annotations

from torch import Tensor, nn


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
    """

    def __init__(self, features: int, classes: int, dropout: float, hidden: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.convolution1 = nn.Conv1d(features, hidden, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm1d(hidden)
        self.convolution2 = nn.Conv1d(hidden, hidden, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm1d(hidden)
        self.activation = nn.ReLU()
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, D) -> (B, K)."""
        series = self.dropout(features).transpose(1, 2)  # (B, D, T)
        series = self.activation(self.norm1(self.convolution1(series)))  # (B, H, T)
        series = self.activation(self.norm2(self.convolution2(series)))
        logits: Tensor = self.classifier(self.dropout(series.mean(dim=2)))
        return logits
