"""How live labels did: how many a robot could act on, how many were right, and how often they changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from kd_edge.types import Prediction


@dataclass(slots=True)
class Tally:
    """Counts over a stream whose camera knows what is really done (``Prediction.truth``); else all stay 0.

    Attributes:
        labels: Predictions with a label, which a robot may act on.
        right: Those whose label is the truth.
        changes: How often a label was another than the one before; frames without a label are passed over.
        real_changes: How often the truth was another than the one before, with a label or without.
    """

    labels: int = 0
    right: int = 0
    changes: int = 0
    real_changes: int = 0
    _label: str | None = field(default=None, repr=False)
    _truth: str | None = field(default=None, repr=False)

    def add(self, prediction: Prediction) -> None:
        """Count the stream's next prediction."""
        truth, label = prediction.truth, prediction.label
        if truth is None:
            return
        self.real_changes += self._truth not in (None, truth)
        self._truth = truth
        if label is not None:
            self.labels += 1
            self.right += label == truth
            self.changes += self._label not in (None, label)
            self._label = label
