"""TSM: shift part of the channels by one segment before the first convolution of every residual block.

The shift has no weights, so the weights of a plain backbone and of a shifted one are interchangeable.
Source: Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.mobilenetv3 import InvertedResidual as MobileBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.backbones import Backbone
from kd_edge.models.efficientnet import InvertedResidual
from kd_edge.models.layers import evaluating


@dataclass(slots=True)
class _Carried:
    """Channels kept for the next segment; not a tensor attribute of the module, which an export would freeze."""

    state: Tensor | None = None


class ShiftedConvolution(nn.Conv2d):
    """A convolution that reads some channels from the previous segment and, unless causal, from the next segment.

    Args:
        convolution: The convolution to replace; its weights are reused.
        segments: Number T of segments of a clip.
        fold: Number of channels from the previous segment and, unless causal, from the next segment.
        causal: Whether channels come from the past only.
    """

    def __init__(self, convolution: nn.Conv2d, segments: int, fold: int, *, causal: bool) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            (convolution.kernel_size[0], convolution.kernel_size[1]),
            stride=(convolution.stride[0], convolution.stride[1]),
            padding=(int(convolution.padding[0]), int(convolution.padding[1])),
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.segments, self.fold, self.causal = segments, fold, causal
        self.carried = _Carried()

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B*T, C, h, w) of clips, or (B, C, h, w) inside a streaming step."""
        state = self.carried.state
        if state is not None:
            self.carried.state = input[:, : self.fold]
            return super().forward(torch.cat([state, input[:, self.fold :]], dim=1))
        return super().forward(temporal_shift(input, self.segments, self.fold, causal=self.causal))


def temporal_shift(frames: Tensor, segments: int, fold: int, *, causal: bool) -> Tensor:
    """Shift channels between the segments of a clip, with zeros at its ends.

    If bidirectional, segment t gets channels [0, fold) of t + 1 and [fold, 2 fold) of t - 1; if causal, it gets
    channels [0, fold) of t - 1. The other channels stay.

    Args:
        frames: (B*T, C, h, w), the segments of each clip in order.
        segments: Number T of segments of a clip.
        fold: Number of channels shifted in each direction.
        causal: Whether channels come from the past only.

    Raises:
        TrainingError: The number of frames is not a multiple of T.
    """
    if frames.shape[0] % segments != 0:
        raise TrainingError(
            f"{frames.shape[0]} frames for clips of {segments} segments",
            f"a multiple of {segments}",
            "pass whole clips",
        )
    clips = frames.reshape(-1, segments, *frames.shape[1:])  # (B, T, C, h, w)
    if causal:
        parts = [_later(clips[:, :, :fold]), clips[:, :, fold:]]
    else:
        parts = [_earlier(clips[:, :, :fold]), _later(clips[:, :, fold : 2 * fold]), clips[:, :, 2 * fold :]]
    return torch.cat(parts, dim=2).flatten(0, 1)


def _later(clips: Tensor) -> Tensor:
    """Shift every segment's channels to the next segment; (B, T, c, h, w)."""
    return functional.pad(clips[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))


def _earlier(clips: Tensor) -> Tensor:
    """Shift every segment's channels to the previous segment; (B, T, c, h, w)."""
    return functional.pad(clips[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))


def add_shifts(backbone: Backbone, segments: int, fold_div: int, *, causal: bool) -> None:
    """Insert a shift before the first convolution of every block with a residual connection.

    In ResNets these are all blocks; in MobileNetV3 and EfficientNet, the inverted residual blocks that add their input.

    Args:
        backbone: The backbone, changed in place; the names of its weights stay.
        segments: Number T of segments.
        fold_div: A block of C channels shifts C // fold_div of them in each direction.
        causal: Whether channels come from the past only.

    Raises:
        ConfigError: There is no such block, or a block has too few channels to shift one.
    """
    blocks = [path for path, module in backbone.named_modules() if _adds_its_input(module)]
    if not blocks:
        raise ConfigError(
            "a backbone without residual blocks", "residual blocks for the temporal shift", "change backbone"
        )
    for path in blocks:
        block = backbone.get_submodule(path)
        inner, convolution = next((n, m) for n, m in block.named_modules() if type(m) is nn.Conv2d)
        fold = convolution.in_channels // fold_div
        if fold == 0:
            raise ConfigError(
                f"fold_div {fold_div} moves no channel of {convolution.in_channels}",
                f"at most {convolution.in_channels}",
                "lower fold_div",
            )
        owner, _, leaf = f"{path}.{inner}".rpartition(".")
        setattr(backbone.get_submodule(owner), leaf, ShiftedConvolution(convolution, segments, fold, causal=causal))


def _adds_its_input(module: nn.Module) -> bool:
    if isinstance(module, MobileBlock):
        return bool(module.use_res_connect)
    return isinstance(module, (BasicBlock, Bottleneck)) or (isinstance(module, InvertedResidual) and module.residual)


def shifts(backbone: nn.Module) -> list[tuple[str, ShiftedConvolution]]:
    """Return path and module of every shifted convolution, in order of execution."""
    return [(path, module) for path, module in backbone.named_modules() if isinstance(module, ShiftedConvolution)]


def state_shapes(backbone: Backbone, in_channels: int, input_px: int) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the path of every shifted convolution and the shape (fold, h, w) of its state, for one input size."""
    shapes: list[tuple[str, tuple[int, int, int]]] = []
    hooks = []
    shifted = shifts(backbone)
    if not shifted:
        return shapes
    for path, module in shifted:

        def note(module: nn.Module, inputs: tuple[Tensor, ...], path: str = path) -> None:
            assert isinstance(module, ShiftedConvolution)
            shapes.append((path, (module.fold, inputs[0].shape[2], inputs[0].shape[3])))

        hooks.append(module.register_forward_pre_hook(note))
    try:
        with torch.no_grad(), evaluating(backbone):
            backbone(torch.zeros(shifted[0][1].segments, in_channels, input_px, input_px))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def run_with_states(backbone: Backbone, frame: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Encode one new frame, given the states of the previous frame.

    Args:
        backbone: Backbone with causal shifts.
        frame: (B, C, S, S).
        states: One (B, fold, h, w) per shifted convolution; zeros before the first frame.

    Returns:
        Feature (B, D) and the states for the next frame.
    """
    carried = [module.carried for _, module in shifts(backbone)]
    try:
        for memory, state in zip(carried, states, strict=True):
            memory.state = state
        feature: Tensor = backbone(frame)
        after = [memory.state for memory in carried]
    finally:
        for memory in carried:
            memory.state = None
    return feature, [state for state in after if state is not None]
