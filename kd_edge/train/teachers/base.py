"""What is looked at in a network while it classifies a batch of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Tap(NamedTuple):
    """A layer that is looked at.

    Attributes:
        path: Module path; of a sensor teacher one of its places (``block1`` to ``block5``, ``fc1``, ``fc2``).
        segments: ``mean`` sees its mean over a clip's segments (B, ...), ``fold`` every frame (B*T, ...).
    """

    path: str
    segments: Literal["mean", "fold"]


class Observation(NamedTuple):
    """What one network made of a batch of clips.

    Attributes:
        logits: (B, K).
        taps: Only what a term asked for.
        ablated: (1, K) logits of a clip without content, where a term compares with it.
        present: (B,) bool, which clips the network could see; None for all.
        attention: (B,) weight of this teacher among several, in [0, 1]; None where there is but one.
        maps: (B, h, w) each, made of the taps, where a term compares them with several teachers'.
    """

    logits: Tensor
    taps: Mapping[Tap, Tensor]
    ablated: Tensor | None = None
    present: Tensor | None = None
    attention: Tensor | None = None
    maps: Sequence[Tensor] = ()

    def of(self, rows: Tensor) -> Observation:
        """The same of some of the clips, by a (B,) bool mask; without segments folded into the batch."""
        taps = {tap: values[rows] for tap, values in self.taps.items()}
        attention = None if self.attention is None else self.attention[rows]
        return Observation(self.logits[rows], taps, self.ablated, None, attention, [m[rows] for m in self.maps])


Shape = tuple[int, ...]


Who = Literal["student", "teacher"]


class Layer(NamedTuple):
    """What is known of a tapped layer before training.

    Attributes:
        shape: Of its output for one frame.
        negative: Whether its output has negative values; without, it ends in a ReLU.
    """

    shape: Shape
    negative: bool


def per_clip(feature: Tensor, segments: int, how: Literal["mean", "fold"]) -> Tensor:
    """A layer's output (B*T, ...) as samples: the mean over each clip's segments (B, ...), or every row of it."""
    if how == "fold":
        return feature
    precise = torch.promote_types(feature.dtype, torch.float32)  # summed in it, without a copy of the frames
    if feature.ndim == 4 and feature.is_contiguous(memory_format=torch.channels_last):
        # In the order of memory: a tenth of the time that summing across channels-last strides takes.
        rows = feature.permute(0, 2, 3, 1)  # (B*T, h, w, c)
        means = rows.reshape(-1, segments, *rows.shape[1:]).mean(dim=1, dtype=precise)  # (B, h, w, c)
        return means.permute(0, 3, 1, 2)
    return feature.reshape(-1, segments, *feature.shape[1:]).mean(dim=1, dtype=precise)  # (B*T, ...) -> (B, ...)
