"""Recurrent states of one source: what a step hands to the next one, and which frames make a step."""

from __future__ import annotations

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.types import Float32


class Recurrence:
    """A stateful model steps once per segment: a frame in between would age its memory too fast.

    Steps follow a grid of one segment spacing that starts with the first frame. A frame makes a step when it is the
    nearest one to the next moment of the grid (at most half a frame period before it, so that jitter does not skip
    one), or when the next frame would come too late. After more than 1.5 spacings without a step the states are zeros
    again: a window that spans a gap is never labelled.

    Args:
        manifest: Of a model with states.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._spacing_ns = manifest.spacing_ns
        self.longest_gap_ns = self._spacing_ns * 3 // 2
        self._states: tuple[Float32, ...] = tuple(np.zeros(s.shape, dtype=np.float32) for s in manifest.states)
        self.reset()

    def reset(self) -> None:
        """Zero the states; the next frame starts a new grid."""
        for state in self._states:
            state.fill(0)
        self._moment_ns: int | None = None  # of the grid, of the last step
        self._step_ns = 0  # stamp of its frame
        self._seen_ns: int | None = None
        self._period_ns = 0  # of the camera, smoothed

    def is_due(self, stamp_ns: int) -> bool:
        """Whether a frame makes a step; call it once for every frame."""
        if self._seen_ns is not None:
            gap_ns = stamp_ns - self._seen_ns
            self._period_ns += (gap_ns - self._period_ns) // 8 if self._period_ns else gap_ns
        self._seen_ns = stamp_ns
        if self._moment_ns is None:
            return True
        early_ns = min(self._period_ns, self._spacing_ns) // 2
        latest_next_ns = stamp_ns + self._period_ns * 3 // 2
        is_nearest = stamp_ns + early_ns >= self._moment_ns + self._spacing_ns
        return is_nearest or latest_next_ns > self._step_ns + self.longest_gap_ns

    def begin(self, stamp_ns: int, states_in: tuple[Float32, ...], row: int) -> bool:
        """Write the states to row ``row`` of a binding, for the step of the frame captured at ``stamp_ns``.

        Returns:
            Whether the memory survived; False after a gap, when the states are zeros.
        """
        unbroken = self._moment_ns is None or stamp_ns - self._step_ns <= self.longest_gap_ns
        if not unbroken:
            self.reset()
            self._seen_ns = stamp_ns
        moment_ns = stamp_ns if self._moment_ns is None else self._moment_ns + self._spacing_ns
        # A camera slower than the segments would fall behind its grid for ever: it starts a new one.
        self._moment_ns = moment_ns if 2 * abs(stamp_ns - moment_ns) <= self._spacing_ns else stamp_ns
        self._step_ns = stamp_ns
        for state, given in zip(self._states, states_in, strict=True):
            given[row] = state
        return unbroken

    def end(self, states_out: tuple[Float32, ...], row: int) -> None:
        """Keep row ``row`` of a finished step's states."""
        for state, made in zip(self._states, states_out, strict=True):
            state[:] = made[row]
