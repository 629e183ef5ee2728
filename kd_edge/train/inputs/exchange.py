"""Controls in which a clip gets the knowledge of another clip, of its class or of any class."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from kd_edge.data import Sample


def exchange(samples: Sequence[Sample], seed: int, purpose: str, *, by_class: bool) -> dict[str, str]:
    """Map each sample id to another one: a random cycle through all samples, or through those of each class.

    Who is alone is given its own; those who ask refuse that, or leave it out.

    Args:
        samples: Who takes part.
        seed: The recipe's.
        purpose: Another one draws other cycles.
        by_class: Whether a class keeps to itself.
    """
    members: dict[int, list[str]] = {}
    for sample in samples:
        members.setdefault(sample.label if by_class else 0, []).append(sample.id)
    givers: dict[str, str] = {}
    for label, names in sorted(members.items()):
        rng = np.random.default_rng((seed, zlib.crc32(f"{purpose} {label}".encode())))
        order = [names[k] for k in rng.permutation(len(names))]
        givers |= dict(zip(order, [*order[1:], order[0]], strict=True))
    return givers
