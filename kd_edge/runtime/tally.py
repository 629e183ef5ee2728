"""Quality of live labels: how many are usable, how many are right, how often they change, and how late they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from kd_edge.types import Prediction


@dataclass(slots=True)
class Tally:
    """Counters of a stream whose camera knows the true action (``Prediction.truth``); otherwise all stay 0.

    Attributes:
        frames: Number of predictions.
        labels: Predictions with a label, which a robot may act on.
        right: Predictions whose label is the truth.
        changes: How often the label changed; frames without a label are ignored.
        real_changes: How often the truth changed, with a label or without.
        noticed: Real changes that were followed by a right label before the next one.
        delay_ns: Total time from these changes to that label.
        seen_ns: Time from the first frame to the last one.
    """

    frames: int = 0
    labels: int = 0
    right: int = 0
    changes: int = 0
    real_changes: int = 0
    noticed: int = 0
    delay_ns: int = 0
    seen_ns: int = 0
    _label: str | None = field(default=None, repr=False)
    _truth: str | None = field(default=None, repr=False)
    _first_ns: int | None = field(default=None, repr=False)
    _changed_ns: int | None = field(default=None, repr=False)  # time of a real change not yet noticed

    def add(self, prediction: Prediction) -> None:
        """Add the stream's next prediction."""
        truth, label, now_ns = prediction.truth, prediction.label, prediction.captured_ns
        if truth is None:
            return
        self._first_ns = now_ns if self._first_ns is None else self._first_ns
        self.seen_ns = now_ns - self._first_ns
        if self._truth not in (None, truth):
            self.real_changes += 1
            self._changed_ns = now_ns
        self._truth = truth
        self.frames += 1
        if label is None:
            return
        self.labels += 1
        self.right += label == truth
        self.changes += self._label not in (None, label)
        self._label = label
        if label == truth and self._changed_ns is not None:
            self.noticed += 1
            self.delay_ns += now_ns - self._changed_ns
            self._changed_ns = None

    @property
    def labelled(self) -> float:
        """Share of frames with a label; 0 without a frame."""
        return self.labels / max(self.frames, 1)

    @property
    def accuracy(self) -> float:
        """Share of right labels; 0 without a label."""
        return self.right / max(self.labels, 1)

    @property
    def false_changes_per_minute(self) -> float:
        """Changes of the label beyond the real ones."""
        return max(0, self.changes - self.real_changes) * 60e9 / max(self.seen_ns, 1)

    @property
    def delay_seconds(self) -> float:
        """Mean time until a change is noticed, over the noticed ones."""
        return self.delay_ns / 1e9 / max(self.noticed, 1)


def together(tallies: list[Tally]) -> Tally:
    """The sum over several streams."""
    counts = ("frames", "labels", "right", "changes", "real_changes", "noticed", "delay_ns", "seen_ns")
    return Tally(**{name: sum(getattr(tally, name) for tally in tallies) for name in counts})
