"""BN-Inception's layers and the names of its published weights.

GoogLeNet with batch norm: four parallel paths in every block (1x1; 3x3; two 3x3; pooling and a projection),
concatenated by channel. The student of SAKDN and the usual network of TSN and TRN.

The published weights (``bn_inception-*.pth``) were converted from Caffe and are not available as a package: set such a
file as ``initial_weights``. They were trained on B, G, R in 0..255 minus (104, 117, 128). Loading reverses the first
convolution's input channels, so that a recipe that normalises R, G, B in 0..1 by ``CAFFE_MEAN`` and ``CAFFE_STD``
computes the published function. A file of this kind is recognised by its entry ``conv1_7x7_s2.weight``; weights saved
by kd-edge have no such entry and are loaded unchanged.

Sources: Ioffe and Szegedy, "Batch Normalization", ICML 2015; layer widths and names of the model definition published
with Wang et al., "Temporal Segment Networks", ECCV 2016.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = ("conv2", "inception_3b", "inception_4d", "inception_5b")
STAGE_CHANNELS = (192, 320, 608, 1024)

SAKDN_LAYERS = ("conv2", "inception_3c", "inception_4c", "inception_5a", "inception_5b")
"""The layers of SAKDN's Eq. 22: whole blocks, as in the paper's text. At 224 px their sides are 56, 14, 14, 7 and 7."""

SAKDN_BRANCHES = (
    "conv2",
    "inception_3c.double_3x3_2",
    "inception_4c.pool_proj",
    "inception_5a.pool_proj",
    "inception_5b.pool_proj",
)
"""The layers tapped by the published code: one path of each block, after its ReLU."""

CAFFE_MEAN = (128 / 255, 117 / 255, 104 / 255)
"""Mean (R, G, B) for preprocessing with the published weights."""
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
"""Standard deviation (R, G, B) for the published weights; the network's inputs range from -128 to 151."""

_FIRST = "conv1_7x7_s2"
_OUTER_NAMES = {_FIRST: "conv1", "conv2_3x3_reduce": "conv2_reduce", "conv2_3x3": "conv2"}

_Pool = Literal["average", "max"]
# name: 1x1; 3x3 reduced, 3x3; double 3x3 reduced, double 3x3; projection of the pooled input
_BLOCKS: tuple[tuple[str, tuple[int, int, int, int, int, int], _Pool], ...] = (
    ("inception_3a", (64, 64, 64, 64, 96, 32), "average"),
    ("inception_3b", (64, 64, 96, 64, 96, 64), "average"),
    ("inception_3c", (0, 128, 160, 64, 96, 0), "max"),
    ("inception_4a", (224, 64, 96, 96, 128, 128), "average"),
    ("inception_4b", (192, 96, 128, 96, 128, 128), "average"),
    ("inception_4c", (160, 128, 160, 128, 160, 128), "average"),
    ("inception_4d", (96, 128, 192, 160, 192, 128), "average"),
    ("inception_4e", (0, 128, 192, 192, 256, 0), "max"),
    ("inception_5a", (352, 192, 320, 160, 224, 128), "average"),
    ("inception_5b", (352, 192, 320, 192, 224, 128), "max"),
)


class HalvingPool(nn.MaxPool2d):
    """3x3 max pooling with stride 2 and ceil(size / 2) outputs, as many as a padded 3x3 convolution with stride 2.

    The published ceil mode outputs one fewer for an odd size, so that the paths of its block could not be concatenated.
    For an even size (a side of 224 px) this is the published layer. The input must not be negative.
    """

    def __init__(self) -> None:
        super().__init__(3, stride=2, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
        height, width = input.shape[2:]
        halved: Tensor = super().forward(functional.pad(input, (0, width % 2, 0, height % 2)))
        return halved


class Inception(nn.Module):
    """Parallel paths over one input, concatenated by channel; every layer keeps its published name.

    Args:
        before: Input channels.
        widths: Output channels of ``1x1``, ``3x3_reduce``, ``3x3``, ``double_3x3_reduce``, ``double_3x3_1`` (and
            ``_2``) and ``pool_proj``. If the first and the last width are 0, the block halves the size: it has no 1x1
            path, and the pooled input is concatenated without projection.
        pool: Kind of pooling.

    Attributes:
        out_channels: Sum of the paths' channels.
    """

    def __init__(self, before: int, widths: tuple[int, int, int, int, int, int], pool: _Pool) -> None:
        super().__init__()
        single, three_reduce, three, double_reduce, double, projection = widths
        stride = 1 if single else 2
        self._paths: list[tuple[str, ...]] = []
        if single:
            self._path({"1x1": _layer(before, single, 1)})
        self._path({"3x3_reduce": _layer(before, three_reduce, 1), "3x3": _layer(three_reduce, three, 3, stride)})
        self._path(
            {
                "double_3x3_reduce": _layer(before, double_reduce, 1),
                "double_3x3_1": _layer(double_reduce, double, 3),
                "double_3x3_2": _layer(double, double, 3, stride),
            }
        )
        pooled: dict[str, nn.Module] = {"pool": _pool(pool, stride)}
        if projection:
            pooled["pool_proj"] = _layer(before, projection, 1)
        self._path(pooled)
        self.out_channels = single + three + double + (projection or before)

    def _path(self, layers: Mapping[str, nn.Module]) -> None:
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._paths.append(tuple(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H, W), or half the size."""
        outputs: list[Tensor] = []
        for path in self._paths:
            y = x
            for name in path:
                y = self.get_submodule(name)(y)
            outputs.append(y)
        return torch.cat(outputs, dim=1)


def parts() -> OrderedDict[str, nn.Module]:
    """Create the parts of a backbone with random weights: stem, ten blocks, pooling."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=_layer(3, 64, 7, 2),
        pool1=nn.MaxPool2d(3, stride=2, ceil_mode=True),
        conv2_reduce=_layer(64, 64, 1),
        conv2=_layer(64, 192, 3),
        pool2=nn.MaxPool2d(3, stride=2, ceil_mode=True),
    )
    before = 192
    for name, widths, pool in _BLOCKS:
        block = Inception(before, widths, pool)
        layers[name] = block
        before = block.out_channels
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten(1)
    return layers


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert published weights to the names used here and to R, G, B; other weights are returned unchanged."""
    first = f"{_FIRST}.weight"
    if first not in state:
        return dict(state)
    turned = dict(state) | {first: state[first].flip(1)}  # B, G, R -> R, G, B
    return {_new_name(key): _flatten_norm(key, value) for key, value in turned.items()}


def _new_name(key: str) -> str:
    module, _, leaf = key.rpartition(".")
    layer = module.removesuffix("_bn")
    kind = "conv" if layer == module else "bn"
    if layer in _OUTER_NAMES:
        return f"{_OUTER_NAMES[layer]}.{kind}.{leaf}"
    block = re.fullmatch(r"(inception_\d[a-e])_(\w+)", layer)
    return f"{block[1]}.{block[2]}.{kind}.{leaf}" if block else key


def _flatten_norm(key: str, value: Tensor) -> Tensor:
    """Flatten the tensors of a batch norm, which older files store as (1, C)."""
    of_norm = key.rpartition(".")[0].endswith("_bn")
    return value.reshape(-1) if of_norm and value.ndim == 2 and value.shape[0] == 1 else value


def _layer(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2),
            bn=nn.BatchNorm2d(after),
            relu=nn.ReLU(),  # not in place: a tap on the batch norm would see it overwritten
        )
    )


def _pool(kind: _Pool, stride: int) -> nn.Module:
    if stride == 2:
        return HalvingPool()
    if kind == "average":
        return nn.AvgPool2d(3, stride=1, padding=1)  # the zero padding counts, as in Caffe
    return nn.MaxPool2d(3, stride=1, padding=1)
