"""Image backbones, which map a frame to a feature vector, with named stage outputs for feature distillation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from kd_edge.errors import ConfigError, TrainingError, did_you_mean
from kd_edge.files import cache_root
from kd_edge.models import bninception, efficientnet
from kd_edge.models.config import BACKBONES
from kd_edge.models.weights import local_state, misfit

_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
# The last block at strides 4, 8, 16 and 32: the strides of a ResNet's four stages.
_MOBILENET_STAGES = ("features.1", "features.3", "features.8", "features.12")


class Backbone(nn.Sequential):
    """A convolutional network without its classifier: (N, C, S, S) float32 -> (N, D) float32.

    The parts keep torchvision's names, so that torchvision's weights can be loaded.

    Attributes:
        feature_size: Number D of features; by default the channels of the last stage.
        stages: Module paths of the four stage outputs, for ``get_submodule``.
        stage_channels: Channels of each stage output.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        stages: tuple[str, ...],
        stage_channels: tuple[int, ...],
        feature_size: int | None = None,
    ) -> None:
        super().__init__(OrderedDict(parts))
        self.stages = stages
        self.stage_channels = stage_channels
        self.feature_size = feature_size or stage_channels[-1]
        self._fixed: list[nn.Module] = []

    @property
    def is_mean(self) -> bool:
        """Whether a feature is the plain spatial mean of the last stage's maps."""
        return self.feature_size == self.stage_channels[-1]

    def fix(self, parts: Iterable[nn.Module]) -> None:
        """Freeze some parts: their parameters and normalisation statistics no longer change."""
        for part in parts:
            self._fixed.append(part.eval().requires_grad_(False))

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        for part in self._fixed:
            part.eval()
        return self

    def parts_of(self, stage: str) -> list[nn.Module]:
        """Return the layers with parameters of one of ``stages``: from the end of the previous stage to its own end."""
        place = self.stages.index(stage)
        names = [name for name, module in self.named_modules() if not list(module.children())]
        ends = [max(k for k, name in enumerate(names) if _is_within(name, path)) for path in self.stages]
        chosen = names[ends[place - 1] + 1 if place else 0 : ends[place] + 1]
        return [module for module in map(self.get_submodule, chosen) if list(module.parameters())]


def _is_within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def build_backbone(name: str, *, in_channels: int, weights: str | Path | None = None) -> Backbone:
    """Build a backbone.

    Args:
        name: One of ``BACKBONES``. ``resnet10_thin`` has one basic block per stage and half of ResNet18's width;
            ``resnet8_grid`` has three basic blocks and features that keep spatial positions; ``cnn4_grid`` has such
            features of four convolutions starting at full resolution, for thermal arrays of 16 x 16 to 80 x 60 pixels;
            ``tiny`` has four small convolutions.
        in_channels: Channels C of the input.
        weights: None (random), ``"imagenet"`` (torchvision's default weights, downloaded once; those of
            ``efficientnet_lite0`` come from the installed package) or a local file, see ``weights.local_state``.
            Classifier entries are ignored. Weights of a network with C input channels, such as a student to be
            fine-tuned, are used unchanged. If the weights are for three channels and C differs, the first convolution's
            weights are summed over their input channels and shared by the C channels; in a stack of colour frames (C a
            multiple of 3) each frame gets the colour weights. ``bninception`` accepts the published file of Caffe
            weights and reverses the order B, G, R; see ``kd_edge.models.bninception``.

    Raises:
        ConfigError: The name is unknown.
        TrainingError: The weights are not available or do not fit.
        MissingExtraError: The package with EfficientNet-Lite0's weights is not installed.
    """
    makers: dict[str, Callable[[], Backbone]] = {
        "resnet50": lambda: _resnet(torchvision.models.resnet50(weights=None)),
        "resnet18": lambda: _resnet(torchvision.models.resnet18(weights=None)),
        "resnet10_thin": _resnet10_thin,
        "resnet8_grid": _resnet8_grid,
        "cnn4_grid": _cnn4_grid,
        "mobilenet_v3_small": _mobilenet,
        "efficientnet_lite0": _efficientnet,
        "bninception": _bninception,
        "tiny": _tiny,
    }
    if name not in makers:
        raise ConfigError(
            f"backbone '{name}'{did_you_mean(name, BACKBONES)}", f"one of {', '.join(BACKBONES)}", "change backbone"
        )
    backbone = makers[name]()
    if weights is not None:
        state = imagenet_state(name) if weights == "imagenet" else local_state(Path(weights))
        _load(backbone, state, str(weights), in_channels)
    if first_convolution(backbone)[1].in_channels != in_channels:
        _adapt_first_convolution(backbone, in_channels)
    return backbone


def _resnet(net: torchvision.models.ResNet) -> Backbone:
    parts = OrderedDict((name, part) for name, part in net.named_children() if name != "fc")
    parts["flatten"] = nn.Flatten(1)
    width = net.fc.in_features
    return Backbone(parts, _RESNET_STAGES, (width // 8, width // 4, width // 2, width))


def _resnet10_thin() -> Backbone:
    channels = (32, 64, 128, 256)
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(channels[0]),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    before = channels[0]
    for stage, after in zip(_RESNET_STAGES, channels, strict=True):
        parts[stage] = _basic_block(before, after)
        before = after
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1)}
    return Backbone(parts, _RESNET_STAGES, channels)


class Regression(nn.Module):
    """A linear regression of M values from the feature, appended to it: (N, D) -> (N, D + M).

    Args:
        features: Feature size D.
        numbers: Number M of values.
        keep_feature: Whether the output includes the feature; otherwise it is (N, M).
    """

    def __init__(self, features: int, numbers: int, *, keep_feature: bool = True) -> None:
        super().__init__()
        self.numbers = nn.Linear(features, numbers)
        self._keeps_feature = keep_feature

    def forward(self, feature: Tensor) -> Tensor:
        """(N, D) -> (N, D + M), or (N, M)."""
        numbers: Tensor = self.numbers(feature)
        return torch.cat([feature, numbers], dim=1) if self._keeps_feature else numbers


def add_regression(backbone: Backbone, numbers: int, *, keep_feature: bool = True) -> None:
    """Let a backbone regress values in every frame, in addition to its feature or instead of it."""
    regression = Regression(backbone.feature_size, numbers, keep_feature=keep_feature)
    backbone.add_module("regression", regression)
    backbone.feature_size = numbers + (backbone.feature_size if keep_feature else 0)


class GridPool(nn.Module):
    """Averages over the cells of a coarse grid, (N, C, h, w) -> (N, C * side * side), in row-major order.

    Cells overlap if the size is not a multiple of the grid, as in ``AdaptiveAvgPool2d``.

    Args:
        side: Number of cells along each side.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C * side * side)."""
        height, width = maps.shape[-2:]
        if torch.compiler.is_exporting() and (height % self.side or width % self.side):
            # One product with a constant, because the exporter turns overlapping cells into gathers and conditions.
            parts = torch.kron(_shares(height, self.side), _shares(width, self.side))  # (side * side, h * w)
            return (maps.flatten(2) @ parts.T.to(maps)).flatten(1)
        return functional.adaptive_avg_pool2d(maps, self.side).flatten(1)


def _shares(length: int, parts: int) -> Tensor:
    """Averaging weights (parts, length) of the overlapping parts of a line."""
    shares = torch.zeros(parts, length)
    for part in range(parts):
        first, after = part * length // parts, -(-(part + 1) * length // parts)
        shares[part, first:after] = 1 / (after - first)
    return shares


class GridFeature(nn.Module):
    """A feature from the global mean and a coarse grid, (N, C, h, w) -> (N, D).

    A mean loses the position of a hand; a few channels on a 4 x 4 grid keep it.

    Args:
        channels: Input channels C.
        features: Feature size D.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 32, 1)
        self.grid = GridPool(4)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.project = nn.Linear(channels + 32 * 16, features)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, D)."""
        seen = torch.cat([self.mean(maps).flatten(1), self.grid(self.reduce(maps))], dim=1)
        features: Tensor = self.project(seen)
        return features


def _resnet8_grid() -> Backbone:
    channels, feature_size = (48, 96, 192), 256
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, channels[0], 8, stride=4, padding=2, bias=False),
        "bn1": nn.BatchNorm2d(channels[0]),
        "relu": nn.ReLU(inplace=True),
        "layer1": _basic_block(channels[0], channels[0]),
        "layer2": _basic_block(channels[0], channels[1]),
        "layer3": _basic_block(channels[1], channels[2]),
        "feature": GridFeature(channels[2], feature_size),
    }
    stages = ("relu", "layer1", "layer2", "layer3")
    return Backbone(parts, stages, (channels[0], *channels), feature_size)


def _cnn4_grid() -> Backbone:
    channels, feature_size = (16, 32, 48, 64), 128
    parts: dict[str, nn.Module] = {}
    before = 3
    for stage, after, stride in zip(_RESNET_STAGES, channels, (1, 2, 2, 1), strict=True):
        parts[stage] = _convolution(before, after, stride)
        before = after
    parts["feature"] = GridFeature(before, feature_size)
    return Backbone(parts, _RESNET_STAGES, channels, feature_size)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    """A 3 x 3 convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _basic_block(before: int, after: int) -> nn.Sequential:
    """A basic block, with stride 2 if the number of channels changes."""
    stride = 1 if after == before else 2
    shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))
    return nn.Sequential(BasicBlock(before, after, stride, None if stride == 1 else shortcut))


def _mobilenet() -> Backbone:
    net = torchvision.models.mobilenet_v3_small(weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's 0.01 fits ImageNet's half a million steps, not a few hundred
    parts = {"features": net.features, "avgpool": net.avgpool, "flatten": nn.Flatten(1)}
    return Backbone(parts, _MOBILENET_STAGES, (16, 24, 48, 576))


def _efficientnet() -> Backbone:
    return Backbone(efficientnet.lite0_parts(), efficientnet.STAGES, efficientnet.STAGE_CHANNELS)


def _bninception() -> Backbone:
    return Backbone(bninception.parts(), bninception.STAGES, bninception.STAGE_CHANNELS)


def _tiny() -> Backbone:
    channels = (8, 12, 16, 24)
    parts: dict[str, nn.Module] = {}
    before = 3
    for stage, after in zip(_RESNET_STAGES, channels, strict=True):
        parts[stage] = _convolution(before, after, 2)
        before = after
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1)}
    return Backbone(parts, _RESNET_STAGES, channels)


def first_convolution(backbone: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return path and module of the convolution that reads the input."""
    return next((n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d))


def _adapt_first_convolution(backbone: Backbone, in_channels: int) -> None:
    path, old = first_convolution(backbone)
    new = type(old)(
        in_channels,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=(int(old.padding[0]), int(old.padding[1])),
        bias=old.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(for_channels(old.weight, in_channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, leaf = path.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, new)


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """Convert the weights of a first convolution to another number of input channels.

    Each filter keeps the sum of its weights over the channels, so an input with equal channels (a grey picture, a scene
    at rest in a motion stack) has the same response. If the new channels are a stack of whole frames (one colour frame
    to three, a single frame to a motion stack), every frame gets the scaled weights; if a stack becomes one frame, the
    frames' weights are added up; otherwise every channel gets an equal share of the sum.

    Args:
        weight: (F, C, k, k).
        channels: The new C.

    Returns:
        (F, channels, k, k).
    """
    before = weight.shape[1]
    if channels % before == 0:  # equal weights for each frame; training learns differences over time
        return weight.repeat(1, channels // before, 1, 1) * (before / channels)
    if channels > 1 and before % channels == 0:
        frames: Tensor = weight.reshape(len(weight), -1, channels, *weight.shape[2:])  # (F, frames, C, k, k)
        return frames.sum(dim=1)
    return (weight.sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1)


def start_from_motion(backbone: Backbone, frame_channels: int) -> None:
    """Initialise half of the first convolution's filters as differences over time, for a motion stack as input.

    The static background causes most of a recording's variance; random filters respond mainly to it, and training
    spends its first epochs on learning to subtract. A quarter of the filters starts as frame(t) - frame(t - d), a
    quarter as frame(t) - frame(t - 2d) (the last offset), the others stay. Training may change all of them.

    Args:
        backbone: Backbone whose input has at least two frames, newest first.
        frame_channels: Channels of one frame.
    """
    _, convolution = first_convolution(backbone)
    quarter = convolution.out_channels // 4
    frames = convolution.in_channels // frame_channels
    with torch.no_grad():
        for first, against in ((0, 1), (quarter, frames - 1)):
            chosen = convolution.weight[first : first + quarter]
            filters = chosen.view(quarter, frames, frame_channels, *chosen.shape[2:])  # (F, M, c, k, k)
            newest = filters[:, 0].clone()
            filters.zero_()
            filters[:, 0] = newest
            filters[:, against] = -newest


def imagenet_state(name: str) -> dict[str, Tensor]:
    """Load the ImageNet weights of a backbone: torchvision's default weights, or EfficientNet-Lite0's from a package.

    Raises:
        TrainingError: There are no weights for the backbone, or the download failed.
        MissingExtraError: The package is not installed.
        ConfigError: There is no folder for the download.
    """
    if name == "efficientnet_lite0":
        return local_state(efficientnet.published_weights())
    try:
        weights = torchvision.models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise TrainingError(
            f"no ImageNet weights for backbone '{name}'",
            "resnet18, resnet50, mobilenet_v3_small or efficientnet_lite0",
            "change backbone, set initial_weights to a file, or remove it",
        ) from error
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True, **_download_options()))
    except (OSError, RuntimeError) as error:  # URLError and HTTPError; RuntimeError for a wrong hash
        raise TrainingError(
            f"ImageNet weights of '{name}' cannot be downloaded ({error})",
            "a network connection or a local file",
            f"fetch {weights.url} elsewhere and set initial_weights to that file, or remove initial_weights",
        ) from error


def _channel_advice(first: Tensor, in_channels: int) -> str:
    """Advice for weights that do not fit, depending on the input channels of their first convolution."""
    channels = first.shape[1] if first.ndim == 4 else 0
    if channels in (3, in_channels):
        return "use weights of this backbone"
    return (
        f"use weights of this backbone with these inputs: these have {channels} channels, preprocess.channels times "
        f"motion_offsets_ms makes {in_channels} here"
    )


def _download_options() -> dict[str, str]:
    """Download folder for torch: its own, or one in kd-edge's cache if the user has no known home."""
    return {"model_dir": str(cache_root() / "imagenet")} if torch.hub.get_dir().startswith("~") else {}


def _load(backbone: Backbone, state: Mapping[str, Tensor], origin: str, in_channels: int) -> None:
    """Load weights of a backbone with three input channels, or with as many as the new network has."""
    inner = "backbone."  # prefix in a clip model saved by kd-edge
    nested = {k.removeprefix(inner): v for k, v in state.items() if k.startswith(inner)}
    found = bninception.renamed(efficientnet.renamed(nested or state))
    first = found.get(f"{first_convolution(backbone)[0]}.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == in_channels != 3:
        _adapt_first_convolution(backbone, in_channels)
    wanted = backbone.state_dict()
    kept = {k: v for k, v in found.items() if k in wanted}
    fault = misfit(wanted, found, "backbone", whole=False)
    if fault:
        raise TrainingError(
            f"weights {origin} do not fit: {fault}",
            f"the same backbone with {'three' if in_channels == 3 else f'{in_channels} or three'} input channels",
            "use weights of this backbone" if first is None else _channel_advice(first, in_channels),
        )
    backbone.load_state_dict(wanted | kept)
