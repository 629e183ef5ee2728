"""Targets that no longer go with their frames, as controls: another clip's, or a clip's own in another order."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from kd_edge.train.inputs.exchange import exchange
from kd_edge.train.inputs.targets.base import Found, StudentClips
from kd_edge.types import Float32


def shuffled(found: Found, how: Literal["class", "time", "all"], clips: StudentClips) -> Found:
    """Targets with their numbers in other places, for controls; see ``Target.shuffle``.

    A clip that is alone in its class, or on its side, lacks the target, too: its own would be no control. In time no
    frame keeps its own.
    """
    lacking = found.lacking
    if how == "time":
        values = {name: _reordered(each, name, clips.seed) for name, each in found.values.items()}
    else:
        givers = exchanged(found.values, clips, by_class=how == "class", purpose=how)
        others = {name: giver for name, giver in givers.items() if giver != name}
        values = {name: fitted(found.values[giver], len(found.values[name])) for name, giver in others.items()}
        why = "alone in its class on its side" if how == "class" else "alone on its side"
        lacking = _with_alone(found, dict.fromkeys(givers.keys() - others.keys(), why))
    groups = tuple(replace(group, name=f"{group.name}{mark(how)}") for group in found.groups)
    return Found(groups, values, lacking)


def mark(how: str | None) -> str:
    """What is added to the name of a group whose numbers are in other places."""
    return "" if how is None else f" (shuffled: {how})"


def _with_alone(found: Found, alone: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """What lacks a target's parts, by their names, and beside it who had nobody to exchange with."""
    names = dict.fromkeys((*found.lacking, *(group.root for group in found.groups)))
    return {name: {**found.lacking.get(name, {}), **alone} for name in names}


def exchanged(having: Iterable[str], clips: StudentClips, *, by_class: bool, purpose: str) -> dict[str, str]:
    """Sample id -> another one of its side, see ``exchange``.

    Args:
        having: Which samples take part.
        clips: The samples with their sides, and the seed.
        by_class: Whether a class keeps to itself.
        purpose: Another one draws other cycles.
    """
    taking, side_of = set(having), {s.id: k for k, side in enumerate(clips.sides) for s in side}
    givers: dict[str, str] = {}
    for side in range(len(clips.sides) + 1):  # the last is of samples on none
        members = [s for s in clips.samples if s.id in taking and side_of.get(s.id, len(clips.sides)) == side]
        givers |= exchange(members, clips.seed, f"{purpose} {side}", by_class=by_class)
    return givers


def fitted(values: Float32, frames: int) -> Float32:
    """Numbers (N, M) of a clip for another of so many frames: at the same share of its length, the nearest frame's."""
    places = np.rint(np.linspace(0, len(values) - 1, frames)).astype(np.int64)
    result: Float32 = values[places]
    return result


def _reordered(values: Float32, name: str, seed: int) -> Float32:
    """The frames along a random cycle through all of them, so that none but a single one stays where it was."""
    order = np.random.default_rng((seed, zlib.crc32(f"time {name}".encode()))).permutation(len(values))
    result: Float32 = np.empty_like(values)
    result[order] = values[np.roll(order, -1)]
    return result
