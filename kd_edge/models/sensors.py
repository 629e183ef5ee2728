"""Networks of wearable sensors, one per sensor, fused layer by layer: the sensor-to-vision teachers.

Source: Liu et al., "Semantics-aware Adaptive Knowledge Distillation for Sensor-to-Vision Action Recognition", IEEE TIP
2021, Sec. III-E, Eq. 18, and the authors' code where the text is not specific: VGG16 with batch norm and random
weights, tapped after each block's pooling, two narrow layers instead of 4096 wide ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.config import PLACES, SMALLEST_POINTS, Network, SensorModelConfig, Similarity, fitting_points
from kd_edge.models.layers import evaluating
from kd_edge.models.spamfm import SPAMFM

_NAMES: dict[Network, str] = {"vgg16": "VGG16", "resnet18": "ResNet18", "conv1d": "1-D CNN"}
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_RESNET18 = (64, 64, 128, 256, 512)
_CONV1D = ((64, 7), (128, 5), (128, 5), (256, 5), (256, 5))  # channels, kernel
_ATTENTION = 64


class SensorOutput(NamedTuple):
    """Outputs of the networks of m sensors for b samples and K classes.

    Attributes:
        logits: (b, m, K); those of a sensor that a sample lacks are meaningless and have weight 0.
        weights: (b, m), non-negative; the rows sum to 1 over the sensors that a sample has.
        stages: m features after the fusion of each layer, (b, c, h, w) for blocks and (b, width) for fc1 and fc2.
    """

    logits: Tensor
    weights: Tensor
    stages: dict[str, tuple[Tensor, ...]]

    @property
    def together(self) -> Tensor:
        """The sensors' weighted mean logits, (b, K)."""
        return (self.weights[..., None] * self.logits).sum(dim=1)


class SensorNetworks(nn.Module):
    """One network per sensor, run in lockstep and fused at the places of the configuration.

    Layers of each network, at n points or an n x n image:

    ========  ==============  ==============  ================
    Place     ``vgg16``       ``resnet18``    ``conv1d``
    ========  ==============  ==============  ================
    block1    64, n/2         64, n/2         64, n/2 x 1
    block2    128, n/4        64, n/4         128, n/4 x 1
    block3    256, n/8        128, n/8        128, n/8 x 1
    block4    512, n/16       256, n/16       256, n/16 x 1
    block5    512, n/32       512, n/32       256, n/32 x 1
    fc1       width: linear (of block5 flat, its mean, or its mean and maximum), batch norm, ReLU, dropout
    fc2       width: linear, no activation
    ========  ==============  ==============  ================

    A block of ``vgg16`` and ``conv1d`` ends after its max pooling; block1 of ``resnet18`` is the first convolution,
    block2 consists of the pooling and layer1. The logits are a linear map of fc2. All weights are random.

    Args:
        config: The architecture.
        sensors: Number m of sensors, 1 or more.
        classes: Number of classes K.
        points: Number n of points of a signal, or side of its image: a multiple of 32; for ``conv1d`` any n >= 32.

    Attributes:
        takes_images: Whether the inputs are images (b, m, 3, n, n) and not signals (b, m, 3, n).

    Raises:
        ConfigError: There is no sensor or no class, or ``points`` cannot be halved five times.
    """

    def __init__(self, config: SensorModelConfig, sensors: int, classes: int, points: int) -> None:
        super().__init__()
        self.config = config
        self.sensors = sensors
        self.points = points
        self.takes_images = config.network != "conv1d"
        _check_sizes(config.network, sensors, classes, points)
        self.networks = nn.ModuleList(_network(config, classes, points) for _ in range(sensors))
        channels = _channels(config)
        self.fusions = nn.ModuleDict(
            {
                place: SPAMFM([channels[place]] * sensors, variant=config.variant, similarity=config.similarity)
                for place in config.fusion
            }
        )
        self.attention = _attention(config.width) if config.attention else None
        self.to(memory_format=torch.channels_last)  # faster on a CPU, especially for (c, n, 1)

    @property
    def similarity(self) -> Similarity:
        """Similarity between samples in evaluation, for every fusion, see ``SPAMFM``; can be set."""
        return next((fusion.similarity for fusion in self._spamfms()), self.config.similarity)

    @similarity.setter
    def similarity(self, value: Similarity) -> None:
        for fusion in self._spamfms():
            fusion.similarity = value

    def forward(self, inputs: Tensor, present: Tensor | None = None) -> SensorOutput:
        """Classify samples by their sensors.

        A sensor's network processes only the samples that have the sensor, so that missing inputs do not affect batch
        statistics; its outputs are 0 for the others. If a training batch has a single such sample, the running
        statistics are used.

        Args:
            inputs: (b, m, 3, n, n) images or (b, m, 3, n) signals, float32, see ``takes_images``.
            present: (b, m) bool, False where a sample lacks a sensor, whose input may then be anything, including NaN;
                None if every sample has all sensors.

        Raises:
            TrainingError: The inputs have a wrong shape, a sample has no sensor, or a training batch has one sample,
                which the batch norm of fc1 cannot normalise.
        """
        self._check(inputs, present)
        if present is not None and bool(present.all()):
            present = None  # spares every fusion a copy
        if present is not None:
            inputs = inputs.masked_fill(~present.view(*present.shape, *[1] * (inputs.ndim - 2)), 0.0)
        features = list((inputs if self.takes_images else inputs[..., None]).unbind(dim=1))  # m of (b, 3, n, n or 1)
        stages: dict[str, tuple[Tensor, ...]] = {}
        for place in PLACES:
            features = self._layer(place, features, present)
            if place in self.fusions:
                features = self.fusions[place](features, present)
            stages[place] = tuple(features)
        logits = torch.stack(self._layer("head", features, present), dim=1)
        return SensorOutput(logits, self._weights(features, present), stages)

    def describe(self) -> str:
        """Describe sensors, network, input size, fusion, weighting and parameters in one line."""
        size = f"images of {self.points} x {self.points}" if self.takes_images else f"signals of {self.points} points"
        fusion = f"fused at {', '.join(self.fusions)} ({self.config.variant})" if self.fusions else "not fused"
        weighting = "weighted by attention" if self.attention is not None else "weighted equally"
        parameters = sum(p.numel() for p in self.parameters()) / 1e6
        return (
            f"{self.sensors} x {_NAMES[self.config.network]}, {self.config.width} wide, on {size}, {fusion}, "
            f"{weighting}, {parameters:.1f} M parameters"
        )

    def _layer(self, place: str, features: Sequence[Tensor], present: Tensor | None) -> list[Tensor]:
        layers = [network.get_submodule(place) for network in self.networks]
        if present is None:
            return [layer(x) for layer, x in zip(layers, features, strict=True)]
        columns = present.unbind(dim=1)
        return [_apply_to_present(layer, x, rows) for layer, x, rows in zip(layers, features, columns, strict=True)]

    def _spamfms(self) -> list[SPAMFM]:
        return [module for module in self.fusions.values() if isinstance(module, SPAMFM)]

    def _weights(self, fc2: Sequence[Tensor], present: Tensor | None) -> Tensor:
        """Weights (b, m): softmax of ``v^T tanh(W fc2_k + b)`` over the present sensors, or 1 / number of sensors."""
        if self.attention is None:
            scores = fc2[0].new_zeros(len(fc2[0]), self.sensors, dtype=torch.float32)
        else:
            scores = torch.cat([self.attention(feature) for feature in fc2], dim=1).float()  # (b, m)
        return (scores if present is None else scores.masked_fill(~present, -torch.inf)).softmax(dim=1)

    def _check(self, inputs: Tensor, present: Tensor | None) -> None:
        form = (3, *[self.points] * (2 if self.takes_images else 1))
        if inputs.ndim != 2 + len(form) or inputs.shape[1:] != (self.sensors, *form) or len(inputs) == 0:
            raise TrainingError(
                f"inputs {tuple(inputs.shape)} for '{self.config.network}'",
                f"(batch, {', '.join(map(str, (self.sensors, *form)))})",
                "pass every sensor's three axes, as images for vgg16 and resnet18 and as signals for conv1d",
            )
        if self.training and len(inputs) < 2:
            raise TrainingError(
                "a training batch of 1 sample", "2 or more, for the batch norm of fc1", "raise the batch size"
            )
        if present is None:
            return
        if present.dtype is not torch.bool or present.shape != inputs.shape[:2]:
            raise TrainingError(
                f"present {tuple(present.shape)} of {present.dtype}",
                f"{tuple(inputs.shape[:2])} of torch.bool",
                "pass one truth value per sample and sensor",
            )
        if not bool(present.any(dim=1).all()):
            raise TrainingError("a sample without any sensor", "one sensor or more", "leave such samples out")


def _apply_to_present(layer: nn.Module, feature: Tensor, rows: Tensor) -> Tensor:
    """Apply a layer to the samples of a (b,) bool mask; the output is 0 for the others."""
    few = int(rows.sum()) < 2  # one sample has no batch statistics; with none, only the output's shape is needed
    with evaluating(layer) if few else nullcontext():
        seen: Tensor = layer(feature[rows] if rows.any() else feature[:1])
    output = seen.new_zeros(len(feature), *seen.shape[1:])
    output[rows] = seen if rows.any() else seen[:0]
    return output


def _check_sizes(network: Network, sensors: int, classes: int, points: int) -> None:
    if sensors < 1 or classes < 1:
        raise ConfigError(f"{sensors} sensors and {classes} classes", "one or more of each", "name the sensors")
    if points != fitting_points(network, points):
        raise ConfigError(
            f"points {points} for network '{network}', which halves them five times",
            f"{SMALLEST_POINTS} or more" if network == "conv1d" else f"a multiple of {SMALLEST_POINTS}",
            f"set points to {fitting_points(network, points)}",
        )


def _channels(config: SensorModelConfig) -> dict[str, int]:
    """Number of channels at every place."""
    blocks = {
        "vgg16": tuple(widths[-1] for widths in _VGG16),
        "resnet18": _RESNET18,
        "conv1d": tuple(channels for channels, _ in _CONV1D),
    }[config.network]
    return dict(zip(PLACES, (*blocks, config.width, config.width), strict=True))


def _network(config: SensorModelConfig, classes: int, points: int) -> nn.Sequential:
    """Build one sensor's network: the places of ``PLACES`` and the head, by name."""
    flat: nn.Module
    last = _channels(config)["block5"]
    if config.network == "vgg16":
        blocks, flat, size = _vgg16_blocks(), nn.Flatten(1), last * (points // SMALLEST_POINTS) ** 2
    elif config.network == "resnet18":
        blocks, flat, size = _resnet18_blocks(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), last
    else:
        blocks, flat, size = _conv1d_blocks(), _MeanAndMaximum(), 2 * last
    width = config.width
    fc1 = (nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(config.dropout))
    parts = [*blocks, nn.Sequential(flat, *fc1), nn.Linear(width, width), nn.Linear(width, classes)]
    return nn.Sequential(OrderedDict(zip((*PLACES, "head"), parts, strict=True)))


def _vgg16_blocks() -> list[nn.Module]:
    """The convolutional part of torchvision's ``vgg16_bn``, split after each max pooling, with its initialisation."""
    blocks: list[nn.Module] = []
    before = 3
    for widths in _VGG16:
        layers: list[nn.Module] = []
        for after in widths:
            convolution = nn.Conv2d(before, after, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # not None here
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            before = after
        blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
    return blocks


def _resnet18_blocks() -> list[nn.Module]:
    net = torchvision.models.resnet18(weights=None)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu)
    return [stem, nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]


def _conv1d_blocks() -> list[nn.Module]:
    """Convolutions over time only, on (b, c, n, 1), so that the outputs are maps as in the image networks."""
    blocks: list[nn.Module] = []
    before = 3
    for after, kernel in _CONV1D:
        convolution = nn.Conv2d(before, after, (kernel, 1), padding=(kernel // 2, 0), bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d((2, 1))))
        before = after
    return blocks


class _MeanAndMaximum(nn.Module):
    """Concatenates mean and maximum over the positions, (b, c, h, w) -> (b, 2 c)."""

    def forward(self, feature: Tensor) -> Tensor:
        return torch.cat([feature.mean(dim=(2, 3)), feature.amax(dim=(2, 3))], dim=1)


def _attention(width: int) -> nn.Sequential:
    """Map from a sensor's fc2 to its score, shared by all sensors; the last weights start at 0 for equal weighting."""
    last = nn.Linear(_ATTENTION, 1, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(width, _ATTENTION), nn.Tanh(), last)
