"""Predictions as sinks get them, and a sink that does as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kd_edge.types import Cause, LabelState, Prediction, Reason
from tests.waiting import PATIENCE_SECONDS


def prediction(
    k: int = 0, state: LabelState = LabelState.OK, label: str = "wave", truth: str | None = None, **changes: Any
) -> Prediction:
    acts = state in (LabelState.OK, LabelState.DEGRADED)
    index = -1 if state in (LabelState.WARMING, LabelState.STALE) else 0
    probabilities = np.array([0.75, 0.25], np.float32) if index == 0 else np.zeros(2, np.float32)
    cause = Cause(Reason.NONE, "") if state is LabelState.OK else Cause(Reason.GAP, "why")
    values: dict[str, Any] = {
        "source": "ir0", "label": label if acts else None, "index": index, "confidence": 0.75 if index == 0 else 0.0,
        "probabilities": probabilities, "state": state, "frame_id": k, "captured_ns": k * 10**8, "emitted_ns": None,
        "valid_until_ns": k * 10**8 + 5, "reason": cause.reason, "detail": cause.detail, "truth": truth,
    }  # fmt: skip
    return Prediction(**{**values, **changes})


class ListSink:
    """Keeps what it gets; ``gate`` holds it up; ``faults`` say what breaks an opening, a writing and a closing."""

    name = "list:"

    def __init__(self, gate: threading.Event | None = None, **faults: Callable[[], Exception | None]) -> None:
        self.got: list[int] = []
        self.gate, self.faults = gate, faults
        self.opened = self.closed = 0
        self.writing = threading.Event()

    def open(self) -> None:
        self.opened += 1
        self._fail("open")

    def write(self, p: Prediction) -> None:
        self.writing.set()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE_SECONDS)
        self._fail("write")
        self.got.append(p.frame_id)

    def close(self) -> None:
        self.closed += 1
        self._fail("close")

    def _fail(self, where: str) -> None:
        fault = self.faults.get(where, lambda: None)()
        if fault is not None:
            raise fault
