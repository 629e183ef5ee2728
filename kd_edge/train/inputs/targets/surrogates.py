"""Random numbers that move as a target does and say nothing of what is seen."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from kd_edge.train.inputs.targets.base import Found, StudentClips
from kd_edge.train.inputs.targets.shuffle import exchanged, fitted
from kd_edge.train.recipe.student_stages import RandomTargets
from kd_edge.types import Float32


def random_like(found: Found, target: RandomTargets, clips: StudentClips) -> Found:
    """Another clip's numbers with their phases drawn anew."""
    values = {}
    for name, giver in exchanged(found.values, clips, by_class=False, purpose="random").items():
        rng = np.random.default_rng((clips.seed, zlib.crc32(f"phases {name}".encode())))
        values[name] = surrogate(fitted(found.values[giver], len(found.values[name])), rng)
    groups = tuple(
        replace(group, name=f"{group.name} (random)", turns=False, weight=group.weight * target.weight)
        for group in found.groups
    )
    return Found(groups, values, found.lacking)


def surrogate(values: Float32, rng: np.random.Generator) -> Float32:
    """A series with other phases: power spectra, means and covariances of its numbers stay what they are.

    Every frequency's phase is moved by one angle for all numbers (Prichard and Theiler, Physical Review Letters 73,
    1994, Eq. 4); the mean and, of an even length, the highest frequency have none.

    Args:
        values: (N, M); what is NaN stays NaN, and counts as a straight line between what is there.
        rng: Draws the angles.
    """
    gone = np.isnan(values)
    spectrum = np.fft.rfft(_bridged(values), axis=0)  # (N // 2 + 1, M)
    angles = rng.uniform(0, 2 * np.pi, len(spectrum))
    angles[0] = 0
    if len(values) % 2 == 0:
        angles[-1] = 0
    moved = np.fft.irfft(spectrum * np.exp(1j * angles)[:, None], n=len(values), axis=0)
    result: Float32 = np.where(gone, np.nan, moved).astype(np.float32)
    return result


def _bridged(values: Float32) -> np.ndarray:
    """(N, M) with its gaps closed by straight lines, ends held; 0 where a number is nowhere there."""
    bridged, every = values.astype(np.float64), np.arange(len(values))
    for column in bridged.T:
        there = ~np.isnan(column)
        column[:] = np.interp(every, every[there], column[there]) if there.any() else 0.0
    return bridged
