"""Targets that no longer go with their frames, as controls: another clip's, or a clip's own in another order."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np

from kd_edge.train.inputs.targets.base import Found, StudentClips
from kd_edge.types import Float32


def shuffled(found: Found, how: Literal["class", "time", "all"], clips: StudentClips) -> Found:
    """The same numbers in other places; see ``Target.shuffle``.

    A clip that is alone in its class, or on its side, keeps its own. Clips that lack the target go on lacking it.
    """
    if how == "time":
        values = {name: _reordered(each, name, clips.seed) for name, each in found.values.items()}
    else:
        givers = exchanged(found.values, clips, by_class=how == "class", purpose=how)
        values = {name: fitted(found.values[giver], len(found.values[name])) for name, giver in givers.items()}
    groups = tuple(replace(group, name=f"{group.name} (shuffled: {how})") for group in found.groups)
    return Found(groups, values, found.lacking)


def exchanged(having: Iterable[str], clips: StudentClips, *, by_class: bool, purpose: str) -> dict[str, str]:
    """Sample id -> another one of its side (and class), each once: a random cycle through all of them.

    Args:
        having: Which samples take part.
        clips: The samples with their sides, and the seed.
        by_class: Whether a class keeps to itself.
        purpose: Another one draws other cycles.
    """
    taking, side_of = set(having), {s.id: k for k, side in enumerate(clips.sides) for s in side}
    members: dict[tuple[int, int], list[str]] = {}
    for sample in clips.samples:
        if sample.id in taking:
            place = side_of.get(sample.id, len(clips.sides)), sample.label if by_class else 0
            members.setdefault(place, []).append(sample.id)
    givers: dict[str, str] = {}
    for (side, label), names in sorted(members.items()):
        rng = np.random.default_rng((clips.seed, zlib.crc32(f"{purpose} {side} {label}".encode())))
        order = [names[k] for k in rng.permutation(len(names))]
        givers |= dict(zip(order, [*order[1:], order[0]], strict=True))
    return givers


def fitted(values: Float32, frames: int) -> Float32:
    """Numbers (N, M) of a clip for another of so many frames: at the same share of its length, the nearest frame's."""
    places = np.rint(np.linspace(0, len(values) - 1, frames)).astype(np.int64)
    result: Float32 = values[places]
    return result


def _reordered(values: Float32, name: str, seed: int) -> Float32:
    order = np.random.default_rng((seed, zlib.crc32(f"time {name}".encode()))).permutation(len(values))
    result: Float32 = values[order]
    return result
