"""The node ``action_recognition``: live labels in a robot's own ROS 2 graph."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from kd_edge.errors import ConfigError, KdEdgeError, did_you_mean, printable, reason
from kd_edge.runtime.ros.diagnostics import NodeFacts, Status, diagnostic_array, node_status, source_status
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.outputs import Messages
from kd_edge.runtime.ros.parameters import BY_NAME, PARAMETERS, Parameter, Parameters, refusal
from kd_edge.runtime.ros.waiting import WaitServer
from kd_edge.runtime.ros.work import Work
from kd_edge.types import Prediction

log = logging.getLogger("kd_edge.runtime")

NAME = "action_recognition"


def _lifecycle_node() -> type:
    """Return rclpy's lifecycle node; without ROS, a stand-in with which this module can at least be imported."""
    try:
        return cast("type", load("rclpy.lifecycle").LifecycleNode)
    except ConfigError:
        return object


class ActionRecognition(_lifecycle_node()):  # type: ignore[misc]
    """Labels image topics, or kd-edge's own camera, and publishes labels, events and diagnostics.

    A lifecycle node: ``configure`` loads the model, subscribes and creates publishers; ``activate`` starts labelling;
    ``deactivate`` stops it; ``cleanup`` releases everything. With the parameter ``autostart`` it configures and
    activates itself. In your own program: ``executor.add_node(ActionRecognition(namespace="left"))``.

    Args:
        node_name: Name of the node.
        options: Further arguments of rclpy's ``Node``: ``namespace``, ``parameter_overrides``, ``context``, ...

    Attributes:
        fault: What keeps it from labelling, in one line; empty without a fault.
        over: Set when it has started by itself and no more labels can follow.
        exit_code: Exit code for a program that runs only this node, once it is over.

    Raises:
        ConfigError: ROS 2 is not installed, or a part of it is missing.
    """

    # Private names begin with two underscores: rclpy's Node has many with one, different ones in each release.

    def __init__(self, node_name: str = NAME, **options: Any) -> None:
        self.__returns = load("rclpy.lifecycle").TransitionCallbackReturn
        self.fault, self.exit_code, self.over = "", 0, threading.Event()
        self.__lifecycle, self.__work, self.__namesakes = "unconfigured", cast("Work | None", None), 0
        self.__wrong: dict[str, ConfigError] = {}  # errors of parameters with invalid values
        self.__is_declared = False
        self.__ended: list[KdEdgeError | None] = []
        super().__init__(node_name, **options)
        self.__declare()
        self.__messages = Messages.built()
        self.__waiting = self.__wait_server()
        self.__kinds = load("diagnostic_msgs.msg")
        self.__diagnostics = self.create_publisher(self.__kinds.DiagnosticArray, "/diagnostics", 10)
        clock = load("rclpy.clock")
        self.__steady = clock.Clock(clock_type=clock.ClockType.STEADY_TIME)  # simulated time may pause
        self.__ticker = self.__ticking()
        self.__over_guard = self.create_guard_condition(self.__deactivate_itself)
        self.__start = self.create_timer(0.0, self.__start_itself, clock=self.__steady)
        self.context.on_shutdown(self.__context_gone)

    # Lifecycle transitions

    def on_configure(self, state: Any) -> Any:
        """Load the model, subscribe, create publishers."""
        return self.__transition("configured", self.__configure, "inactive")

    def on_activate(self, state: Any) -> Any:
        """Start labelling."""
        result = self.__transition("activated", self.__activate, "active")
        if self.__ended:  # during the transition, when it was too early to deactivate
            self.__over_guard.trigger()
        return result

    def on_deactivate(self, state: Any) -> Any:
        """Stop labelling; a last label of each camera reports that no more will follow."""
        return self.__transition("deactivated", lambda: self.__configured.stop(), "inactive")

    def on_cleanup(self, state: Any) -> Any:
        """Release everything."""
        return self.__transition("cleaned up", self.__close, "unconfigured")

    def on_shutdown(self, state: Any) -> Any:
        """Release everything for good, from any state."""
        return self.__transition("shut down", self.__close, "finalized")

    def on_error(self, state: Any) -> Any:
        """Release everything after an unexpected error and return to unconfigured."""
        with suppress(Exception):  # the error was reported already
            self.__close()
        self.__lifecycle = "unconfigured"
        return self.__returns.SUCCESS

    def destroy_node(self) -> Any:
        """Stop everything, from any state; no thread is left running."""
        with suppress(Exception):  # there is no one left to report to
            self.__close()
        if self.__waiting is not None:
            self.__waiting.destroy()
            self.__waiting = None
        return super().destroy_node()

    # Carrying out transitions

    def __transition(self, done: str, action: Callable[[], None], state: str) -> Any:
        """Run a transition; a fault is logged in one line, shown in the diagnostics, and does not change the state."""
        try:
            action()
        except KdEdgeError as error:
            self.__fail(f"not {done}: {error}", error.exit_code)
            return self.__returns.FAILURE
        except Exception as error:  # rclpy would not report it
            log.error("not %s, here:", done, exc_info=True)
            self.__fail(printable(f"not {done}: {type(error).__name__}: {reason(error)}"), 1)
            return self.__returns.ERROR
        self.__lifecycle, self.fault = state, ""
        self.__report()
        return self.__returns.SUCCESS

    def __fail(self, fault: str, exit_code: int) -> None:
        self.fault, self.exit_code = fault, exit_code
        self.get_logger().error(fault)
        self.__report()

    def __configure(self) -> None:
        if self.__wrong:
            raise next(iter(self.__wrong.values()))
        values = Parameters.of({each.name: self.__value(each.name) for each in PARAMETERS})
        messages, waiting = self.__messages, self.__waiting
        self.__work = Work(self, values, self.__value, messages, waiting, self.__report, self.__labels_over)

    def __activate(self) -> None:
        self.__ended.clear()  # left over from earlier labels
        self.__configured.start()

    @property
    def __configured(self) -> Work:
        if self.__work is None:
            raise ConfigError("the node is not configured", "a configured node", "configure it first")
        return self.__work

    def __close(self) -> None:
        work, self.__work = self.__work, None
        if work is not None:
            work.close()

    def __context_gone(self) -> None:
        """Stop the threads when ROS is shut down from elsewhere; nothing can be published any more."""
        if self.__work is not None:
            with suppress(Exception):  # there is no one left to report to
                self.__work.stop(publish_last=False)
        self.over.set()

    # Autostart and the end of the labels

    def __start_itself(self) -> None:
        """Autostart once, as soon as an executor serves the node."""
        self.destroy_timer(self.__start)
        if not self.__value("autostart") or self.__lifecycle != "unconfigured":
            return
        success = self.__returns.SUCCESS
        if self.trigger_configure() != success or self.trigger_activate() != success:
            self.over.set()

    def __labels_over(self, error: KdEdgeError | None) -> None:
        """Handle the end of the labels, in the stream's thread; the executor does the rest."""
        self.__ended.append(error)
        with suppress(Exception):  # ROS may be gone
            self.__over_guard.trigger()

    def __deactivate_itself(self) -> None:
        if not self.__ended or self.__lifecycle != "active":
            return
        error = self.__ended.pop()
        self.trigger_deactivate()
        if error is not None:
            self.__fail(str(error), error.exit_code)
        if self.__value("autostart"):
            self.over.set()

    # Waiting for a label

    def __wait_server(self) -> WaitServer | None:
        if not self.__messages.are_typed:
            return None
        return WaitServer(self, self.__messages, self.__valid_predictions, self.__label_message)

    def __valid_predictions(self) -> Sequence[Prediction]:
        return () if self.__work is None else self.__work.valid_predictions()

    def __label_message(self, prediction: Prediction) -> Any:
        return self.__messages.label() if self.__work is None else self.__work.label_message(prediction)

    # Diagnostics

    def __ticking(self) -> Any:
        return self.create_timer(self.__value("diagnostics_period_s"), self.__tick, clock=self.__steady)

    def __tick(self) -> None:
        """Check the graph and publish diagnostics, once per period."""
        self.__see_namesakes()
        if self.__work is not None:
            self.__work.look()
        self.__report()
        if self.__ticker.timer_period_ns != round(self.__value("diagnostics_period_s") * 1e9):
            self.destroy_timer(self.__ticker)
            self.__ticker = self.__ticking()

    def __see_namesakes(self) -> None:
        own = (self.get_name(), self.get_namespace())
        namesakes = max(0, self.get_node_names_and_namespaces().count(own) - 1)
        if namesakes and not self.__namesakes:
            self.get_logger().warning(
                f"{namesakes + 1} nodes are called {self.get_fully_qualified_name()}: give each a name of its own "
                "(--ros-args -r __node:=NAME); one that has just crashed is seen for some seconds more"
            )
        self.__namesakes = namesakes

    def __report(self) -> None:
        """Publish diagnostics: once per period, and immediately after a change of state."""
        ros = self.context.handle  # not context.ok(): a thread that shuts ROS down holds its lock and waits for us
        if ros is None or not ros.ok():
            return
        kinds = self.__kinds
        message = diagnostic_array(self.__statuses(), kinds.DiagnosticArray, kinds.DiagnosticStatus, kinds.KeyValue)
        message.header.stamp = self.get_clock().now().to_msg()
        self.__diagnostics.publish(message)

    def __statuses(self) -> list[Status]:
        name, work = self.get_fully_qualified_name(), self.__work
        if work is None:
            return [node_status(NodeFacts(name, self.__lifecycle, self.fault, namesakes=self.__namesakes))]
        facts = work.node_facts(name, self.__lifecycle, self.fault, self.__namesakes)
        return [node_status(facts), *(source_status(facts, each) for each in work.source_facts())]

    # Parameters

    def __value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def __declare(self) -> None:
        """Declare all parameters; one with an invalid value gets its default, and configuring fails with its error."""
        self.add_on_set_parameters_callback(self.__check_parameters)
        for each in PARAMETERS:
            default, descriptor = list(each.default) if each.kind == "strs" else each.default, _descriptor(each)
            try:
                self.declare_parameter(each.name, default, descriptor)
            except Exception as error:  # rclpy's own, for a wrong type or range
                self.__wrong[each.name] = self.__fault_of(each, error)
                self.declare_parameter(each.name, default, descriptor, ignore_override=True)
        self.__is_declared = True
        for name in self.__given():
            hint = did_you_mean(name, BY_NAME)
            if hint and not self.has_parameter(name):  # a name unlike all of them is another node's
                self.get_logger().warning(printable(f"parameter {name} is not one of this node's{hint}"))

    def __given(self) -> dict[str, Any]:
        """Parameters from the command line, files and launch; rclpy does not report undeclared ones."""
        return dict(getattr(self, "_parameter_overrides", {}))

    def __fault_of(self, parameter: Parameter, error: Exception) -> ConfigError:
        """Return why a parameter's given value is invalid, worded as for ``ros2 param set``."""
        given = self.__given().get(parameter.name)
        refused = "" if given is None else refusal(parameter.name, given.value, is_configured=False, is_started=False)
        found, _, expected = refused.rpartition(". Expected ")
        return ConfigError(
            found or printable(f"parameter {parameter.name}: {reason(error)}"),
            expected if found else "a value it can have",
            "correct it, or leave it out",
        )

    def __check_parameters(self, parameters: list[Any]) -> Any:
        """Return whether parameters may be set now, all or none."""
        state = {"is_configured": self.__work is not None, "is_started": self.__is_declared}
        refused = [why for each in parameters if (why := refusal(each.name, each.value, **state))]
        if self.__is_declared and not refused:
            for each in parameters:
                self.__wrong.pop(each.name, None)
        result = load("rcl_interfaces.msg").SetParametersResult
        return result(successful=not refused, reason=refused[0] if refused else "")


def _descriptor(parameter: Parameter) -> Any:
    """Describe a parameter for tools such as rqt."""
    messages = load("rcl_interfaces.msg")
    made = messages.ParameterDescriptor(name=parameter.name, description=parameter.description)
    if parameter.choices:
        choices = ", ".join(choice or "(empty)" for choice in parameter.choices)
        made.additional_constraints = f"one of {choices}"
    if not parameter.live:
        made.additional_constraints = "; ".join(
            filter(None, (made.additional_constraints, "changes only while the node is unconfigured"))
        )
    if parameter.kind == "int":
        least, most = cast("float", parameter.least), cast("float", parameter.most)
        made.integer_range = [messages.IntegerRange(from_value=int(least), to_value=int(most), step=0)]
    if parameter.kind == "float":
        made.floating_point_range = [
            messages.FloatingPointRange(from_value=float(parameter.least or 0), to_value=float(parameter.most or 0))
        ]
    return made
