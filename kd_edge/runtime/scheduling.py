"""Cores and priority of a stream, as set in a camera file."""

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
    """Scheduling of a thread: its cores, its policy and the policy's parameters."""

    cpus: frozenset[int]
    policy: int
    parameters: Any

    @classmethod
    def of(cls, process: int = 0) -> _Place:
        """Of a process or thread; 0 is this thread."""
        cpus = frozenset(os.sched_getaffinity(process))
        return cls(cpus, os.sched_getscheduler(process), os.sched_getparam(process))

    def take(self, process: int = 0) -> None:
        """Apply it to a process or thread, as far as permitted."""
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
        priority: Priority of ``SCHED_FIFO``, 1 to 99; None leaves it unchanged. If it is not permitted, a warning is
            logged and the stream runs without: late labels are stale, not wrong.

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
    """Let ``at_ease`` find this thread's original scheduling."""
    moved = (_Place.of(), _chosen(before) or before)  # if nested in another stream, that one's original
    _given.append(moved)
    try:
        yield
    finally:
        _given.remove(moved)


def _chosen(place: _Place) -> _Place | None:
    """The operator's original scheduling of what ``scheduled`` moved to ``place``; None if it moved nothing there."""
    return next((before for given, before in reversed(_given.copy()) if given == place), None)


def at_ease(process: int = 0) -> None:
    """Undo ``scheduled`` for a process or thread: writers and builds must not hold up labelling.

    Anything that ``scheduled`` has not moved stays as the operator set it.

    Args:
        process: Process or thread; 0 is this thread.
    """
    if not _given:
        return
    with suppress(ProcessLookupError):  # a child process may have ended
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
