"""CNN + LSTM: a CNN looks at motion images of the depth clip, a CNN with an LSTM at the signals; decisions are pooled.

Source: Dawar, Ostadabbas, Kehtarnavaz, "Data Augmentation in Deep Learning-Based Fusion of Depth and Inertial Sensing
for Action Recognition", IEEE Sensors Letters 2019. What is kept: depth as weighted motion images of three orthogonal
views, a convolutional network on them, convolutions and an LSTM on the signals, training inputs changed at random, the
product of both networks' class probabilities. The networks' sizes, their training and the random changes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from kd_edge import metrics
from kd_edge.data import Sample
from kd_edge.rundir import Scores, StageReport
from kd_edge.study.classical.fusion.config import CnnLstmConfig
from kd_edge.study.classical.fusion.inertial import at_points
from kd_edge.study.classical.fusion.motion_features import motion_images
from kd_edge.study.classical.fusion.networks import (
    MotionNetwork,
    SignalNetwork,
    changed_images,
    changed_signals,
    log_probabilities,
    train_network,
)
from kd_edge.study.classical.fusion.recordings import Recordings, Reduction, gather, signal
from kd_edge.study.classical.results import Begin, Fitted, Progress, device, reproducible
from kd_edge.train.results.scores import right_by_subject
from kd_edge.types import Float32

_Float64 = npt.NDArray[np.float64]


class CnnLstmReport(StageReport):
    """What became of both networks together.

    Attributes:
        networks: Network -> loss and accuracy of its last epoch, and its own test accuracy.
    """

    networks: dict[str, dict[str, float]]


def train_cnn_lstm(config: CnnLstmConfig, data_root: Path | None, begin: Begin, report: Progress) -> Fitted:
    """Train both networks and test them together; see ``Fit``."""
    recordings = gather(config, reductions(config), data_root, report)
    begin()
    logs: dict[str, dict[str, _Float64]] = {}
    training: dict[str, dict[str, float]] = {}
    parameters = 0
    with reproducible(config):
        for part in ("depth", "sensors"):
            if not (config.depth if part == "depth" else config.sensors):
                continue
            network, training[part] = _train(config, recordings, part, report)
            logs[part] = {s: log_probabilities(network, _inputs(config, recordings, part, s)) for s in _TESTED}
            parameters += sum(p.numel() for p in network.parameters())
    weights = {"depth": config.depth_weight, "sensors": 1 - config.depth_weight}
    scores = {side: sum(weights[part] * logs[part][side] for part in logs) for side in _TESTED}
    truth = {side: recordings.labels(side) for side in _TESTED}
    names = recordings.dataset.labels
    student = CnnLstmReport(
        modality=config.modality,
        backbone="cnn",
        temporal="lstm" if config.sensors else "alone",
        epochs=config.epochs,
        selected_epoch=config.epochs,
        selected_by="last epoch",
        **{side: _figures(scores[side], truth[side], names, recordings.sides[side]) for side in _TESTED},
        parameters=parameters,
        networks={
            part: training[part] | {"test_accuracy": metrics.accuracy(logs[part]["test"].argmax(1), truth["test"])}
            for part in logs
        },
    )
    return Fitted(recordings.dataset, recordings.protocol(config), recordings.fingerprint, student)


_TESTED = ("validation", "test")


def _figures(scores: Any, truth: Any, names: tuple[str, ...], samples: Sequence[Sample]) -> Scores | None:
    if not len(truth):
        return None
    figures = metrics.figures(scores, truth, names, temperature=1.0)
    return Scores(**figures, right=right_by_subject(samples, scores, truth))


def reductions(config: CnnLstmConfig) -> dict[str, Reduction]:
    """Six motion images, and signals at a fixed number of points."""
    motion, points = config.motion, config.points
    found = {}
    if config.depth:
        found[config.depth] = Reduction(
            lambda clip: motion_images(clip.frames, motion), {"images": motion.model_dump(mode="json")}
        )
    for sensor in config.sensors:
        found[sensor] = Reduction(lambda clip: at_points(signal(clip), points), {"points": points})
    return found


def _train(
    config: CnnLstmConfig, recordings: Recordings, part: str, report: Progress
) -> tuple[nn.Module, dict[str, float]]:
    inputs, labels, classes = _inputs(config, recordings, part, "train"), recordings.labels("train"), recordings.classes
    network: nn.Module = (
        MotionNetwork(inputs.shape[1], classes, config.channels, config.dropout)
        if part == "depth"
        else SignalNetwork(inputs.shape[1], classes, config.channels, config.hidden, config.dropout)
    ).to(device())
    augment = changed_images if part == "depth" else changed_signals

    def epochs_done(done: int) -> None:
        report(f"training the {part} network", done, config.epochs)

    return network, train_network(network, inputs, labels, config, augment if config.augment else None, epochs_done)


def _inputs(config: CnnLstmConfig, recordings: Recordings, part: str, side: str) -> Float32:
    """Motion images (N, C, S, S), or all sensors' signals (N, C, points) by the training clips' mean and spread."""
    if part == "depth":
        return recordings.arrays(config.depth, side)
    train, given = (
        np.concatenate([recordings.arrays(s, which) for s in config.sensors], axis=1) for which in ("train", side)
    )
    mean, spread = train.mean(axis=(0, 2), keepdims=True), train.std(axis=(0, 2), keepdims=True)
    return np.asarray((given - mean) / np.where(spread > 0, spread, 1), dtype=np.float32)
