"""What is looked at in a network while it classifies a batch of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

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
