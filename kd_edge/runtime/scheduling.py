"""Which cores a stream runs on and how urgently, as a camera file says."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kd_edge.errors import ConfigError

log = logging.getLogger("kd_edge.runtime")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and how urgently a thread runs: its cores, its policy and the policy's parameters."""

    cpus: frozenset[int]
    policy: int
    parameters: Any

    @classmethod
    def of(cls, process: int = 0) -> _Place:
        """Of a process or thread; 0 is this thread."""
        cpus = frozenset(os.sched_getaffinity(process))
        return cls(cpus, os.sched_getscheduler(process), os.sched_getparam(process))

    def take(self, process: int = 0) -> None:
        """Put a process or thread there, as far as it is permitted."""
        with suppress(OSError):
            os.sched_setscheduler(process, self.policy, self.parameters)
        with suppress(OSError):
            os.sched_setaffinity(process, self.cpus)


_given: list[tuple[_Place, _Place]] = []
"""Of each ``scheduled`` in force where it has put its threads, and where they ran before any: as the operator chose, by
systemd or ``taskset``."""


@contextmanager
def scheduled(cpus: Sequence[int] = (), priority: int | None = None) -> Iterator[None]:
    """Bind this thread, and those it starts inside the block, to cores and a real-time priority.

    Args:
        cpus: Numbers of the cores; empty leaves them as they are.
        priority: Of ``SCHED_FIFO``, 1 to 99; None leaves it as it is. Where it is not permitted a warning says so and
            the stream runs as it is: late labels are stale, not wrong.

    Raises:
        ConfigError: A core that this process does not have, or a system that cannot bind.
    """
    if not cpus and priority is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("cpus or priority in the camera file", "Linux", "leave them out on this system")
    before = _Place.of()
    try:
        if cpus:
            _bind(cpus, before.cpus)
        if priority is not None:
            _hurry(priority)
        with _remembered(before):
            yield
    finally:
        before.take()


@contextmanager
def _remembered(before: _Place) -> Iterator[None]:
    """Let ``at_ease`` find from where this thread was moved."""
    moved = (_Place.of(), _chosen(before) or before)  # inside another stream's, that one has moved it
    _given.append(moved)
    try:
        yield
    finally:
        _given.remove(moved)


def _chosen(place: _Place) -> _Place | None:
    """Where the operator had what ``scheduled`` has put there; None where it has put nothing there."""
    return next((before for given, before in reversed(_given.copy()) if given == place), None)


def at_ease(process: int = 0) -> None:
    """Give up what ``scheduled`` gave: what writes files or builds must not hold up what labels frames.

    What ``scheduled`` has not moved stays as the operator chose, whatever another stream of this process asked for.

    Args:
        process: Of which process or thread; 0 is this thread.
    """
    if not _given:
        return
    with suppress(ProcessLookupError):  # a child may have ended already
        if (before := _chosen(_Place.of(process))) is not None:
            before.take(process)


def _bind(cpus: Sequence[int], there: Set[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"cpus {list(cpus)} in the camera file",
            f"some of this process's cores {sorted(there)}",
            "correct cpus, or leave it out",
        ) from error


def _hurry(priority: int) -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        log.warning(
            "real-time priority %d is not permitted; running without (LimitRTPRIO=%d in the unit permits it)",
            priority,
            priority,
        )
    except OSError as error:
        raise ConfigError(f"priority {priority} ({error.strerror})", "1 to 99", "correct the camera file") from error
