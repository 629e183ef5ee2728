"""Wait for a label by service or action, for example from a behaviour tree, without blocking the executor."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kd_edge.errors import did_you_mean, printable
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.outputs import Messages
from kd_edge.types import Prediction

LONGEST_SECONDS = 3600.0
"""Longest time-out of a caller."""
TICK_SECONDS = 0.05
"""Interval of the checks for time-outs and cancellations, while there are callers."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller waits for.

    Attributes:
        label: The action.
        source: Name of the camera; empty for any.
        min_confidence: Minimum confidence of the label, 0 to 1.
        seconds: Longest wait; 0 checks only the current labels.
    """

    label: str
    source: str
    min_confidence: float
    seconds: float

    def fault(self, labels: Sequence[str], sources: Sequence[str]) -> str:
        """Return why this can never be met; empty if it can.

        Args:
            labels: Labels of the model.
            sources: Names of the cameras.
        """
        if self.label not in labels:
            found = f"label '{self.label:.80}' is not one of the model's{did_you_mean(self.label, labels)}"
            return printable(f"{found}. Expected one of {', '.join(labels)}")
        if self.source and self.source not in sources:
            found = f"source '{self.source:.80}' is not a camera of this node"
            return printable(f"{found}. Expected {', '.join(sources)}, or none")
        if not 0 <= self.min_confidence <= 1:  # also refuses NaN
            return f"min_confidence {self.min_confidence:g}. Expected 0 to 1"
        if not (math.isfinite(self.seconds) and 0 <= self.seconds <= LONGEST_SECONDS):
            return f"timeout {self.seconds:g} s. Expected 0 to {LONGEST_SECONDS:g} s"
        return ""

    def is_met(self, prediction: Prediction) -> bool:
        """Whether a prediction has the wanted label, confidence and source."""
        return (
            prediction.label == self.label
            and prediction.confidence >= self.min_confidence
            and self.source in ("", prediction.source)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a wait.

    Attributes:
        success: Whether the label appeared.
        prediction: The last prediction; None if there was none.
        message: Why the label did not appear; empty if it did.
        is_cancelled: Whether the caller cancelled the wait.
    """

    success: bool
    prediction: Prediction | None
    message: str = ""
    is_cancelled: bool = False


class Wait:
    """One waiting caller.

    Args:
        wanted: What it waits for.
        deadline: Time limit by ``time.monotonic``.
        future: Receives the answer.
        on_change: Called with each change of the label during the wait.
        is_cancelled: Polled; returns whether the caller has cancelled.
    """

    def __init__(
        self,
        wanted: Wanted,
        deadline: float,
        future: Any,
        on_change: Callable[[Prediction], None] | None,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self.wanted, self.deadline, self.future, self.is_cancelled = wanted, deadline, future, is_cancelled
        self._on_change = on_change
        self.newest: Prediction | None = None

    def see(self, prediction: Prediction) -> bool:
        """Process a prediction and return whether it is what the caller waits for."""
        if self.wanted.source not in ("", prediction.source):
            return False
        before, self.newest = self.newest, prediction
        changed = before is None or (before.source, before.label, before.state, before.reason) != (
            prediction.source, prediction.label, prediction.state, prediction.reason
        )  # fmt: skip
        if changed and self._on_change is not None:
            self._on_change(prediction)
        return self.wanted.is_met(prediction)

    def end(self, answer: Answer) -> None:
        """Answer the caller."""
        self.future.set_result(answer)


class Waits:
    """All waiting callers; thread-safe.

    Args:
        make_future: Creates what a caller awaits: ``rclpy.task.Future``.
        wake: Called after an answer, to wake a sleeping executor.
        now: Returns the time in seconds.

    Attributes:
        closed: Why callers cannot wait now; empty while they can.
    """

    def __init__(
        self, make_future: Callable[[], Any], wake: Callable[[], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._make_future, self._wake, self._now = make_future, wake, now
        self._lock = threading.Lock()
        self._waiting: list[Wait] = []
        self._most = 0
        self.closed = "the node is not active"

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, most: int) -> None:
        """Accept callers from now on, at most ``most`` at a time."""
        with self._lock:
            self._most, self.closed = most, ""

    def begin(
        self,
        wanted: Wanted,
        newest: Sequence[Prediction],
        on_change: Callable[[Prediction], None] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Start a wait.

        Args:
            wanted: What to wait for; its ``fault`` must be empty.
            newest: The currently valid predictions, one per camera.
            on_change: Called with each change of the label during the wait, from the stream's thread.
            is_cancelled: Whether the caller has cancelled.

        Returns:
            A future of an ``Answer``, which may be done already.
        """
        wait = Wait(wanted, self._now() + wanted.seconds, self._make_future(), on_change, is_cancelled)
        met = next((p for p in newest if wait.see(p)), None)
        with self._lock:
            refused = self.closed or (f"{self._most} callers wait already (max_waits)" if self._is_full else "")
            if not refused and met is None and wanted.seconds > 0:
                self._waiting.append(wait)
                return wait.future
        if refused:
            return self.refused(refused, wait.newest)
        if met is not None:
            wait.end(Answer(True, met))
        else:
            wait.end(_too_late(wait))
        return wait.future

    def refused(self, why: str, newest: Prediction | None = None) -> Any:
        """Return a future that is done, with a negative answer."""
        future = self._make_future()
        future.set_result(Answer(False, newest, why))
        return future

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= self._most

    def see(self, prediction: Prediction, *, is_valid: bool = True) -> None:
        """Process a new prediction.

        Args:
            prediction: The newest one of its camera.
            is_valid: Whether it has not expired; an expired one ends no wait.
        """
        self._end_those(lambda wait: Answer(True, prediction) if wait.see(prediction) and is_valid else None)

    def look(self) -> None:
        """End the waits that have timed out or were cancelled."""
        now = self._now()
        self._end_those(lambda wait: _cancelled(wait) if wait.is_cancelled() else None)
        self._end_those(lambda wait: _too_late(wait) if now >= wait.deadline else None)

    def close(self, why: str) -> None:
        """End all waits, and accept no more callers."""
        with self._lock:
            self.closed = why
        self._end_those(lambda wait: Answer(False, wait.newest, why))

    def _end_those(self, answer_of: Callable[[Wait], Answer | None]) -> None:
        if not self._waiting:
            return
        with self._lock:
            answers = [(wait, answer_of(wait)) for wait in self._waiting]
            self._waiting = [wait for wait, answer in answers if answer is None]
        for wait, answer in answers:
            if answer is not None:
                wait.end(answer)
        if len(self._waiting) < len(answers):
            self._wake()


def _too_late(wait: Wait) -> Answer:
    last = wait.newest
    seen = "no label came at all" if last is None else f"the last was {last.label or last.state.value}"
    if last is not None and last.reason:
        seen += f" ({last.reason.value})"
    return Answer(False, last, f"no '{wait.wanted.label}' in {wait.wanted.seconds:g} s: {seen}")


def _cancelled(wait: Wait) -> Answer:
    return Answer(False, wait.newest, "cancelled", is_cancelled=True)


class WaitServer:
    """The service ``~/wait_for_label`` and the action ``~/wait_for_label_action``.

    They exist as long as the node: a caller of an inactive node is refused immediately, and callers are still answered
    during shutdown.

    Args:
        node: The rclpy node.
        messages: Message types, including kd_edge_msgs.
        newest: Returns the currently valid predictions.
        label_message: Converts a prediction to ``ActionLabel``.

    Attributes:
        waits: The waiting callers.
    """

    def __init__(
        self,
        node: Any,
        messages: Messages,
        newest: Callable[[], Sequence[Prediction]],
        label_message: Callable[[Prediction], Any],
    ) -> None:
        self._messages, self._newest, self._label_message = messages, newest, label_message
        self._labels: Sequence[str] = ()
        self._sources: Sequence[str] = ()
        action, clock = load("rclpy.action"), load("rclpy.clock")
        group = load("rclpy.callback_groups").ReentrantCallbackGroup()  # a waiting caller must not block the others
        self._guard = node.create_guard_condition(lambda: None, group)
        self.waits = Waits(load("rclpy.task").Future, self._wake)
        self._ticking = threading.Lock()
        steady = clock.Clock(clock_type=clock.ClockType.STEADY_TIME)
        self._timer = node.create_timer(TICK_SECONDS, self._look, group, clock=steady)
        self._timer.cancel()  # runs only while there are callers
        node.create_service(messages.service, "~/wait_for_label", self._serve, callback_group=group)
        self._action = action.ActionServer(
            node,
            messages.action,
            "~/wait_for_label_action",
            self._execute,
            callback_group=group,
            goal_callback=lambda goal: action.GoalResponse.ACCEPT,  # the result says why a goal is refused
            cancel_callback=lambda goal: action.CancelResponse.ACCEPT,
        )

    def open(self, most: int, labels: Sequence[str], sources: Sequence[str]) -> None:
        """Accept callers from now on.

        Args:
            most: Maximum number at a time.
            labels: Labels of the model.
            sources: Names of the cameras.
        """
        self._labels, self._sources = labels, sources
        self.waits.open(most)

    def destroy(self) -> None:
        """Destroy the action server, before the node is destroyed."""
        self._action.destroy()

    def _wake(self) -> None:
        with suppress(Exception):  # the node may be gone by now
            self._guard.trigger()

    def _look(self) -> None:
        self.waits.look()
        with self._ticking:
            if not len(self.waits):
                self._timer.cancel()

    def _begin(
        self,
        request: Any,
        on_change: Callable[[Prediction], None] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Start a wait for a request and return its future."""
        seconds = request.timeout.sec + request.timeout.nanosec / 1e9
        wanted = Wanted(request.label, request.source, float(request.min_confidence), seconds)
        if not self.waits.closed and (fault := wanted.fault(self._labels, self._sources)):
            return self.waits.refused(fault)
        with self._ticking:
            future = self.waits.begin(wanted, self._newest(), on_change, is_cancelled)
            if len(self.waits):
                self._timer.reset()
        return future

    async def _serve(self, request: Any, response: Any) -> Any:
        return self._filled(response, await self._begin(request))

    async def _execute(self, goal: Any) -> Any:
        def send_feedback(prediction: Prediction) -> None:
            feedback = self._messages.action.Feedback()
            feedback.label = self._label_message(prediction)
            with suppress(Exception):  # the client or the node may be gone
                goal.publish_feedback(feedback)

        answer = await self._begin(goal.request, send_feedback, lambda: bool(goal.is_cancel_requested))
        if answer.is_cancelled:
            goal.canceled()
        elif answer.success:
            goal.succeed()
        else:
            goal.abort()
        return self._filled(self._messages.action.Result(), answer)

    def _filled(self, response: Any, answer: Answer) -> Any:
        response.success, response.message = answer.success, answer.message
        if answer.prediction is not None:
            response.label = self._label_message(answer.prediction)
        return response
