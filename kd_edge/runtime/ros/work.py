"""The parts of a configured node: model, sources, publishers, and the labelling thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

from kd_edge.artifact import default_model
from kd_edge.engines import EngineName, Provider
from kd_edge.errors import EngineError, KdEdgeError
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.recognizer import MAX_SOURCES, Recognizer
from kd_edge.runtime.ros.annotated import AnnotatedImages
from kd_edge.runtime.ros.clock import RosClock
from kd_edge.runtime.ros.diagnostics import NodeFacts, Rate, SourceFacts
from kd_edge.runtime.ros.events import Events
from kd_edge.runtime.ros.labelling import Labelling
from kd_edge.runtime.ros.outputs import Changes, Messages, Outputs, set_label
from kd_edge.runtime.ros.parameters import Parameters
from kd_edge.runtime.ros.sources import Sources
from kd_edge.runtime.ros.waiting import WaitServer
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Cause, Prediction, Reason


class Work:
    """Created when the node is configured and closed when it is cleaned up; labels between ``start`` and ``stop``.

    Args:
        node: The rclpy node.
        parameters: Its parameters.
        live: Returns the current value of a parameter.
        messages: The available message types.
        waiting: Receives every prediction; None if kd_edge_msgs is not built.
        on_state_change: Called when a camera's state changes.
        on_end: Called once from the stream's thread when labels end by themselves, with the error, if any.

    Raises:
        KdEdgeError: Model, topics or camera cannot be used; nothing stays open.
    """

    def __init__(
        self,
        node: Any,
        parameters: Parameters,
        live: Callable[[str], Any],
        messages: Messages,
        waiting: WaitServer | None,
        on_state_change: Callable[[], None],
        on_end: Callable[[KdEdgeError | None], None],
    ) -> None:
        self._parameters, self._live, self._messages, self._waiting = parameters, live, messages, waiting
        self._on_state_change, self._on_end = on_state_change, on_end
        self._labelling: Labelling | None = None
        self._begin()
        with ExitStack() as opened:
            self.recognizer = opened.enter_context(loaded(parameters))
            is_simulated = live("use_sim_time") and not parameters.camera  # local cameras have no simulated time
            self.clock: Clock = RosClock(node) if is_simulated else MONOTONIC
            self._sources = Sources(node, parameters, self.recognizer.manifest, self.clock)
            opened.callback(self._sources.close)
            self._outputs = Outputs(node, parameters, messages, self.recognizer.manifest.labels)
            opened.callback(self._outputs.close)
            self._annotated = AnnotatedImages(node, parameters.annotated_fps)
            opened.callback(self._annotated.close)
            self._closing = opened.pop_all()

    def _begin(self) -> None:
        """Reset the state of a labelling run."""
        self._changes, self._events = Changes(), Events()
        self._newest: dict[str, Prediction] = {}
        self._rates: dict[str, Rate] = {}

    def start(self) -> None:
        """Open the cameras and start labelling.

        Raises:
            KdEdgeError: A camera cannot be used; nothing stays open.
        """
        self._begin()
        labelling = Labelling(self._stream, self._process, self._sources.has_new_lens, self._on_end)
        self._labelling = labelling  # before its thread uses it
        try:
            labelling.start()
        except BaseException:
            self._labelling = None
            raise
        if self._waiting is not None:
            self._waiting.open(self._parameters.max_waits, self.recognizer.manifest.labels, labelling.names)

    def _stream(self) -> LabelStream:
        """Create a stream with new cameras; kd-edge's own recordings are paced by their stamps."""
        self.recognizer.hand_over()
        options = StreamOptions(realtime=True, trust=self._parameters.trust or None)
        return LabelStream(self.recognizer, self._sources.cameras(), options, self.clock)

    def stop(self, *, publish_last: bool = True) -> None:
        """Stop labelling; does nothing if it is not running.

        Args:
            publish_last: Whether to publish a stale label for each camera, for subscribers that act on labels.

        Raises:
            EngineError: The thread hangs; it is abandoned, and the objects it uses are not closed.
        """
        labelling, self._labelling = self._labelling, None
        if self._waiting is not None:
            self._waiting.waits.close("the node is not active")
        if labelling is None:
            return
        if not labelling.stop():
            self._closing.pop_all()
            raise EngineError("labels do not stop: the engine hangs", "an engine that answers", "restart the program")
        for name in labelling.names if publish_last else ():
            self._publish(self._last(name))

    def _last(self, name: str) -> Prediction:
        now_ns, last = self.clock.now_ns(), self._newest.get(name)
        frame_id, captured_ns = (-1, now_ns) if last is None else (last.frame_id, last.captured_ns)
        cause = Cause(Reason.NO_FRAME, "the node was deactivated")
        return self.recognizer.stale(name, frame_id, captured_ns, now_ns, cause)

    def close(self) -> None:
        """Stop and release everything; a second call does nothing."""
        try:
            self.stop()
        finally:
            self._closing.close()

    # In the stream's thread

    def _process(self, prediction: Prediction) -> None:
        """Process a prediction of the stream."""
        self._apply_live()
        before = self._newest.get(prediction.source)
        self._publish(prediction)
        self._rates.setdefault(prediction.source, Rate()).see(prediction.captured_ns)
        if before is None or (before.state, before.reason) != (prediction.state, prediction.reason):
            self._on_state_change()

    def _apply_live(self) -> None:
        """Apply the parameters that may change while labelling."""
        self._events.min_confidence = self._live("event_min_confidence")
        self._annotated.fps = self._live("annotated_fps")
        labelling = self._labelling  # a stop in another thread sets it to None
        if labelling is not None:
            labelling.set_max_age_ms(self._live("max_age_ms") or None)

    def _publish(self, prediction: Prediction) -> None:
        """Publish a prediction in every form, with its events."""
        origin = self._sources.origin(prediction)
        self._newest[prediction.source] = prediction
        is_change = self._changes.is_due(prediction)
        if is_change or self._live("publish") == "every":
            self._outputs.label(prediction, origin)
        for event in self._events.see(prediction, origin.stamp_ns):
            self._outputs.event(event, origin)
        if self._waiting is not None:
            self._waiting.waits.see(prediction, is_valid=not prediction.is_stale(self.clock.now_ns()))
        now_ns = self.clock.now_ns()
        if self._annotated.is_due(prediction.source, now_ns):
            labelling = self._labelling  # as above
            frame = None if labelling is None else labelling.frame_of(prediction.source)
            if frame is not None:
                self._annotated.publish(frame, prediction, origin, now_ns)

    # For other threads

    def valid_predictions(self) -> list[Prediction]:
        """Return the currently valid predictions."""
        now_ns = self.clock.now_ns()
        return [each for each in tuple(self._newest.values()) if not each.is_stale(now_ns)]

    def label_message(self, prediction: Prediction) -> Any:
        """Convert a prediction to ``ActionLabel``."""
        message = self._messages.label()
        set_label(message, prediction, self._sources.origin(prediction))
        return message

    def look(self) -> None:
        """Check the topics' publishers; while labelling, their cameras do that."""
        if self._labelling is None:
            self._sources.look()

    def node_facts(self, name: str, lifecycle: str, fault: str, namesakes: int) -> NodeFacts:
        """Return the state of the node, for diagnostics."""
        clock, labelling = self.clock, self._labelling
        return NodeFacts(
            name=name,
            lifecycle=lifecycle,
            fault=fault,
            model=self.recognizer.manifest.name,
            engine=self.recognizer.engine.name,
            degraded=self.recognizer.degraded_reason,
            namesakes=namesakes,
            is_simulated=isinstance(clock, RosClock),
            standstill=clock.trouble if isinstance(clock, RosClock) else "",
            statistics=None if labelling is None else labelling.statistics,
            waits=0 if self._waiting is None else len(self._waiting.waits),
        )

    def source_facts(self) -> list[SourceFacts]:
        """Return the state of each camera, for diagnostics."""
        labelling = self._labelling
        names = self._sources.names if labelling is None else labelling.names
        return [self._facts(name) for name in names]

    def _facts(self, name: str) -> SourceFacts:
        now_ns, prediction, rate = self.clock.now_ns(), self._newest.get(name), self._rates.get(name)
        age_ms = None if prediction is None else (now_ns - prediction.captured_ns) / 1e6
        fps = 0.0 if rate is None else rate.fps(now_ns)
        return SourceFacts(name, prediction, age_ms, fps, self._sources.facts(name))


def loaded(parameters: Parameters) -> Recognizer:
    """Load the model that a node's parameters name.

    Raises:
        KdEdgeError: The model is missing, damaged, not trusted, or cannot be run here.
    """
    return Recognizer.load(
        parameters.model or default_model(),
        engine=cast("EngineName", parameters.engine),
        threads=parameters.threads,
        provider=cast("Provider", parameters.provider) if parameters.provider else None,
        strict=parameters.strict,
        self_test="accept" if parameters.accept_self_test else "raise",
        valid_ms=parameters.valid_ms or None,
        max_sources=max(MAX_SOURCES, len(parameters.topics)),
        smooth_ms=None if parameters.smooth_ms < 0 else parameters.smooth_ms,
        trust=parameters.trust or None,
    )
