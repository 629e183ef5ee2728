"""Which frames of a source are steps of the model, and the states passed from one step to the next."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.types import Float32

SMOOTHED_GAPS = 8
"""Gaps over which the period of a camera is smoothed."""
KNOWN_GAPS = 3
"""From this many gaps on, jitter hardly changes the estimated period."""


class Steps(Protocol):
    """The steps of one source: ``see`` every frame, then ``begin`` and ``end`` its step if it ``is_due``."""

    @property
    def is_due(self) -> bool:
        """Whether the last frame is due for a step."""
        ...

    def reset(self) -> None:
        """Restart with the next frame."""
        ...

    def see(self, stamp_ns: int) -> None:
        """Add a frame, captured later than all before."""
        ...

    def begin(self, states_in: tuple[Float32, ...], row: int) -> bool:
        """Write the states to row ``row`` of a binding, for the step of the frame seen last.

        Returns:
            Whether the memory survived; False after a gap, when the states are zeros.
        """
        ...

    def end(self, states_out: tuple[Float32, ...], row: int) -> None:
        """Store row ``row`` of a finished step's states."""
        ...


def steps_of(manifest: Manifest) -> Steps:
    """The steps of a source of a model with or without states."""
    return Recurrence(manifest) if manifest.states else EveryFrame()


def label_ns(manifest: Manifest) -> int:
    """Time until the next label must have come.

    Without states one spacing: then the window would miss its newest segment. With states the longest time between two
    steps.
    """
    return _longest_gap_ns(manifest) if manifest.states else manifest.spacing_ns


class EveryFrame:
    """A model without states: every frame is a step; see ``Steps``."""

    is_due = True

    def reset(self) -> None:
        """Do nothing."""

    def see(self, stamp_ns: int) -> None:
        """Do nothing."""

    def begin(self, states_in: tuple[Float32, ...], row: int) -> bool:
        """Write nothing; there are no states to lose."""
        return True

    def end(self, states_out: tuple[Float32, ...], row: int) -> None:
        """Do nothing."""


class Recurrence:
    """A model with states: one step per segment, as more steps would age its states too fast; see ``Steps``.

    Steps follow a grid of one segment spacing that starts with the first frame. A frame makes a step when it is the
    nearest one to the next moment of the grid (at most half a frame period before it, so that jitter does not skip
    one), or when the next frame would come too late. After more than 1.5 spacings without a step the states are zeros
    again: a window that spans a gap is never labelled.

    Args:
        manifest: Manifest of a model with states.
    """

    _seen_ns: int | None  # stamp of the newest frame
    _step_ns: int | None  # stamp of the last step's frame
    _moment_ns: int  # of the grid, of the last step
    _period_ns: int  # the camera's: a mean of the first gaps, then exponentially smoothed
    _gaps: int  # number of gaps in ``_period_ns``, counted up to ``SMOOTHED_GAPS``

    def __init__(self, manifest: Manifest) -> None:
        self._spacing_ns = manifest.spacing_ns
        self._longest_gap_ns = _longest_gap_ns(manifest)
        self._states: tuple[Float32, ...] = tuple(np.zeros(s.shape, dtype=np.float32) for s in manifest.states)
        self.reset()

    @property
    def is_due(self) -> bool:
        """Whether the last frame is due for a step; False after its step."""
        if self._seen_ns is None or self._seen_ns == self._step_ns:
            return False
        if self._step_ns is None:
            return True
        early_ns = min(self._period_ns, self._spacing_ns) // 2
        # Jitter of 15 % makes a gap 1.3 periods long, and the first ones as short as 0.7.
        latest_next_ns = self._seen_ns + self._period_ns * (4 if self._gaps < KNOWN_GAPS else 3) // 2
        is_nearest = self._seen_ns + early_ns >= self._moment_ns + self._spacing_ns
        return is_nearest or latest_next_ns > self._step_ns + self._longest_gap_ns

    def reset(self) -> None:
        """Zero the states; the next frame starts a new grid."""
        self._start_anew(None)

    def see(self, stamp_ns: int) -> None:
        """Add a frame; its distance from the last one updates the camera's period."""
        if self._seen_ns is not None:
            gap_ns = stamp_ns - self._seen_ns
            self._gaps = min(self._gaps + 1, SMOOTHED_GAPS)
            self._period_ns += (gap_ns - self._period_ns) // self._gaps
        self._seen_ns = stamp_ns

    def begin(self, states_in: tuple[Float32, ...], row: int) -> bool:
        """Write the states of the previous step, or zeros after a gap; place the step on the grid."""
        stamp_ns = self._seen_ns
        if stamp_ns is None:
            raise RuntimeError("a step without a frame: see() comes first")
        unbroken = self._step_ns is None or stamp_ns - self._step_ns <= self._longest_gap_ns
        if not unbroken:
            self._start_anew(stamp_ns)
        moment_ns = stamp_ns if self._step_ns is None else self._moment_ns + self._spacing_ns
        # A camera slower than the segments would fall further and further behind its grid: start a new one.
        self._moment_ns = moment_ns if 2 * abs(stamp_ns - moment_ns) <= self._spacing_ns else stamp_ns
        self._step_ns = stamp_ns
        for state, given in zip(self._states, states_in, strict=True):
            given[row] = state
        return unbroken

    def end(self, states_out: tuple[Float32, ...], row: int) -> None:
        """Store row ``row`` of a finished step's states."""
        for state, made in zip(self._states, states_out, strict=True):
            state[:] = made[row]

    def _start_anew(self, seen_ns: int | None) -> None:
        for state in self._states:
            state.fill(0)
        self._seen_ns, self._step_ns = seen_ns, None
        self._moment_ns = self._period_ns = self._gaps = 0


def _longest_gap_ns(manifest: Manifest) -> int:
    return manifest.spacing_ns * 3 // 2
