"""The two networks of CNN + LSTM, their training and the random changes of their inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.study.classical.fitting import fit
from kd_edge.study.classical.fusion.config import CnnLstmConfig
from kd_edge.types import Float32, Int64

Augment = Callable[[Float32, np.random.Generator], Float32]
"""A changed copy of one training input."""

_CLIPS = 64  # looked at together in evaluation
_SHIFT, _STRETCH, _GAIN = 0.08, 0.15, 0.15
"""Most an input is moved, as a share of its length; stretched; and made stronger or weaker."""


class MotionNetwork(nn.Module):
    """Class logits of motion images.

    Args:
        images: Number C of images.
        classes: Number K of classes.
        channels: Output channels of the first convolution, doubled by each later one.
        dropout: Probability of dropping a feature before the classifier, in training.
    """

    def __init__(self, images: int, classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        sizes = (images, channels, 2 * channels, 4 * channels, 8 * channels)
        stages = [_stage(nn.Conv2d, nn.BatchNorm2d, a, b) for a, b in itertools.pairwise(sizes)]
        pooled = [layer for stage in stages[:-1] for layer in (stage, nn.MaxPool2d(2, ceil_mode=True))]
        self.layers = nn.Sequential(*pooled, stages[-1], nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout))
        self.classifier = nn.Linear(4 * sizes[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, h, w) float32 -> (N, K) logits."""
        logits: Tensor = self.classifier(self.layers(images))
        return logits


class SignalNetwork(nn.Module):
    """Class logits of signals: two convolutions, an LSTM, the mean of its outputs.

    Args:
        axes: Number C of axes of all sensors.
        classes: Number K of classes.
        channels: Half the output channels of the first convolution, a quarter of the second's.
        hidden: Size of the LSTM's state.
        dropout: Probability of dropping a feature before the classifier, in training.
    """

    def __init__(self, axes: int, classes: int, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _stage(nn.Conv1d, nn.BatchNorm1d, axes, 2 * channels),
            nn.MaxPool1d(2),
            _stage(nn.Conv1d, nn.BatchNorm1d, 2 * channels, 4 * channels),
            nn.MaxPool1d(2),
        )
        self.lstm = nn.LSTM(4 * channels, hidden, batch_first=True)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, signals: Tensor) -> Tensor:
        """(N, C, points) float32 -> (N, K) logits."""
        steps = self.layers(signals).transpose(1, 2)  # (N, points / 4, 4 * channels)
        outputs, _ = self.lstm(steps)
        logits: Tensor = self.classifier(outputs.mean(dim=1))
        return logits


def _stage(convolution: Any, normalisation: Any, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs, 3, padding=1, bias=False), normalisation(outputs), nn.ReLU())


def train_network(
    network: nn.Module,
    inputs: Float32,
    labels: Int64,
    config: CnnLstmConfig,
    augment: Augment | None,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Train a classifier of whole clips, in place, on its device.

    Args:
        network: Inputs (N, ...) to logits (N, K).
        inputs: (N, ...) of the training clips, N >= 2.
        labels: (N,) int64.
        config: Epochs, batch size, seed and the optimiser's settings.
        augment: Random change of an input, made anew in each epoch; None leaves the inputs as they are.
        progress: Called with the epochs done.

    Returns:
        ``loss`` and ``accuracy`` on the training inputs, averaged over the last epoch.
    """
    rng = np.random.default_rng(config.seed)

    def given(batch: Int64) -> Tensor:
        return torch.from_numpy(
            inputs[batch] if augment is None else np.stack([augment(inputs[i], rng) for i in batch])
        )

    return fit(
        network,
        config,
        np.arange(len(labels)),
        max(1, len(labels) // config.batch_size),
        given,
        labels,
        rng,
        progress,
    )


def log_probabilities(network: nn.Module, inputs: Float32) -> npt.NDArray[np.float64]:
    """(N, K) float64 of inputs (N, ...), in evaluation mode; N may be 0."""
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        batches = [torch.from_numpy(inputs[first : first + _CLIPS]) for first in range(0, len(inputs), _CLIPS)]
        parts = [network(batch.to(device)).double() for batch in batches]
    return np.asarray(F.log_softmax(torch.cat(parts), dim=1).cpu().numpy()) if parts else np.zeros((0, 0))


def changed_images(images: Float32, rng: np.random.Generator) -> Float32:
    """Images (C, h, w) moved, stretched and scaled by the same random amounts; what comes in from outside is 0."""
    height, width = images.shape[1:]
    stretch = rng.uniform(1 - _STRETCH, 1 + _STRETCH, 2)
    shift = rng.uniform(-_SHIFT, _SHIFT, 2) * (width, height)
    centre = np.array([width - 1, height - 1]) / 2
    matrix = np.column_stack([np.diag(stretch), centre - stretch * centre + shift])  # (2, 3), about the centre
    moved = [cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR) for image in images]
    return (np.stack(moved) * rng.uniform(1 - _GAIN, 1 + _GAIN)).astype(np.float32)


def changed_signals(signals: Float32, rng: np.random.Generator) -> Float32:
    """Signals (C, points) moved and stretched in time and scaled by random amounts; the ends are repeated."""
    points = signals.shape[1]
    at = np.arange(points, dtype=np.float64)
    middle = (points - 1) / 2
    source = (at - middle) * rng.uniform(1 - _STRETCH, 1 + _STRETCH) + middle + rng.uniform(-_SHIFT, _SHIFT) * points
    gain = rng.uniform(1 - _GAIN, 1 + _GAIN)
    return (gain * np.stack([np.interp(source, at, axis) for axis in signals])).astype(np.float32)
