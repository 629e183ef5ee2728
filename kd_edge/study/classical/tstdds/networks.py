"""The network of a stream: an image classifier, its training, and the feature maps that are pooled afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.models import Backbone, build_backbone
from kd_edge.study.classical.fitting import fit
from kd_edge.study.classical.tstdds.config import StreamConfig
from kd_edge.types import Float32, Int64

STREAMS = ("spatial", "local", "global")
SHIFT = 1 / 8
"""Training inputs move by up to this share of the frame's side; the border is repeated."""

Draw = Callable[[int, np.random.Generator], Float32]
"""An input (C, S, S) of a training clip, given by its position."""


class Stream(nn.Module):
    """Class logits of a stream's input, and the feature maps on the way.

    Args:
        backbone: Image network.
        classes: Number K of classes.
        dropout: Probability of dropping a feature in training.
        layers: Stages whose maps are taken, from 1.
    """

    def __init__(self, backbone: Backbone, classes: int, dropout: float, layers: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.feature_size, classes))
        self._taps = [backbone.stages[layer - 1] for layer in layers]

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, S, S) float32 -> (N, K) logits."""
        logits: Tensor = self.classifier(self.backbone(inputs))
        return logits

    def maps(self, inputs: Iterable[Float32]) -> list[Float32]:
        """Feature maps of each tapped stage, in evaluation mode.

        Args:
            inputs: Batches (n, C, S, S) of one video's inputs.

        Returns:
            (N, C_l, h_l, w_l) per stage, values >= 0: a stage that ends in a ReLU is taken as it is, of a linear one
            (MobileNet) the positive part.
        """
        taken: list[list[Float32]] = [[] for _ in self._taps]

        def keep(into: list[Float32]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            return lambda module, given, output: into.append(F.relu(output).cpu().numpy())

        hooks = [
            self.backbone.get_submodule(tap).register_forward_hook(keep(into))
            for tap, into in zip(self._taps, taken, strict=True)
        ]
        device = next(self.parameters()).device
        self.eval()
        try:
            with torch.no_grad():
                for batch in inputs:
                    self.backbone(torch.from_numpy(batch).to(device))
        finally:
            for hook in hooks:
                hook.remove()
        return [np.concatenate(parts) for parts in taken]


def build_stream(config: StreamConfig, name: str, classes: int, frame_channels: int) -> Stream:
    """The network of one stream, initialised from torch's global generator."""
    channels = {"spatial": frame_channels, "local": 2 * config.flow_fields, "global": 2}[name]
    backbone = build_backbone(config.backbone, in_channels=channels, weights=config.initial_weights)
    return Stream(backbone, classes, config.dropout, config.layers)


def train_stream(
    stream: Stream, draw: Draw, labels: Int64, config: StreamConfig, seed: int, progress: Callable[[int], None]
) -> dict[str, float]:
    """Train a stream as a classifier of single inputs.

    Args:
        stream: Network that is trained in place, on its device.
        draw: Draws an input of a training clip.
        labels: (N,) of the training clips.
        config: Epochs, batch size and the optimiser's settings.
        seed: Seed of the draws, the shifts and the shuffling.
        progress: Called with the epochs done.

    Returns:
        ``loss`` and ``accuracy`` on the training inputs, averaged over the last epoch.
    """
    rng = np.random.default_rng(seed)
    examples = np.repeat(np.arange(len(labels)), config.draws_per_clip)

    def given(batch: Int64) -> Tensor:
        return shifted(torch.from_numpy(np.stack([draw(int(i), rng) for i in batch])), rng)

    return fit(stream, config, examples, -(-len(examples) // config.batch_size), given, labels, rng, progress)


def shifted(inputs: Tensor, rng: np.random.Generator) -> Tensor:
    """Each input (N, C, S, S) moved by its own random offset of up to ``SHIFT`` of its side."""
    reach = int(inputs.shape[-1] * SHIFT)
    padded = F.pad(inputs, (reach,) * 4, mode="replicate")
    offsets = rng.integers(0, 2 * reach + 1, size=(len(inputs), 2))
    height, width = inputs.shape[-2:]
    return torch.stack([p[:, y : y + height, x : x + width] for p, (y, x) in zip(padded, offsets, strict=True)])
