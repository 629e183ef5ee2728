"""The node ``action_recognition``: live labels inside a robot's own graph of ROS 2."""

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
    """The lifecycle node of rclpy; where there is no ROS this module can be read, and the node not be made."""
    try:
        return cast("type", load("rclpy.lifecycle").LifecycleNode)
    except ConfigError:
        return object


class ActionRecognition(_lifecycle_node()):  # type: ignore[misc]
    """Labels image topics, or a camera of kd-edge's own, and publishes labels, events and diagnostics.

    A lifecycle node: ``configure`` loads the model, subscribes and makes publishers; ``activate`` begins to label;
    ``deactivate`` ends that; ``cleanup`` gives everything back. With the parameter ``autostart`` it configures and
    activates itself. In a program of one's own: ``executor.add_node(ActionRecognition(namespace="left"))``.

    Args:
        node_name: Of the node.
        options: What rclpy's ``Node`` takes besides: ``namespace``, ``parameter_overrides``, ``context``, ...

    Attributes:
        fault: What keeps it from labelling, in one line; empty where nothing does.
        over: Set when it has started by itself and labels can come no more.
        exit_code: What a program that runs only this node is to end with, once it is over.

    Raises:
        ConfigError: ROS 2 is not there, or lacks something.
    """

    # Names of its own begin with two underscores: rclpy's Node has many with one, others in each release.

    def __init__(self, node_name: str = NAME, **options: Any) -> None:
        self.__returns = load("rclpy.lifecycle").TransitionCallbackReturn
        self.fault, self.exit_code, self.over = "", 0, threading.Event()
        self.__lifecycle, self.__work, self.__namesakes = "unconfigured", cast("Work | None", None), 0
        self.__wrong: dict[str, ConfigError] = {}  # of parameters that were given and cannot be
        self.__is_declared = False
        self.__ended: list[KdEdgeError | None] = []
        super().__init__(node_name, **options)
        self.__declare()
        self.__messages = Messages.built()
        self.__waiting = self.__wait_server()
        self.__kinds = load("diagnostic_msgs.msg")
        self.__diagnostics = self.create_publisher(self.__kinds.DiagnosticArray, "/diagnostics", 10)
        clock = load("rclpy.clock")
        self.__steady = clock.Clock(clock_type=clock.ClockType.STEADY_TIME)  # simulated time may stand still
        self.__ticker = self.__ticking()
        self.__over_guard = self.create_guard_condition(self.__deactivate_itself)
        self.__start = self.create_timer(0.0, self.__start_itself, clock=self.__steady)
        self.context.on_shutdown(self.__context_gone)

    # What a lifecycle manager asks for

    def on_configure(self, state: Any) -> Any:
        """Load the model, subscribe, make publishers."""
        return self.__transition("configured", self.__configure, "inactive")

    def on_activate(self, state: Any) -> Any:
        """Begin to label."""
        told = self.__transition("activated", self.__activate, "active")
        if self.__ended:  # meanwhile: it was too early to deactivate then
            self.__over_guard.trigger()
        return told

    def on_deactivate(self, state: Any) -> Any:
        """End labelling; a last label of each camera says that there are no more."""
        return self.__transition("deactivated", lambda: self.__configured.stop(), "inactive")

    def on_cleanup(self, state: Any) -> Any:
        """Give everything back."""
        return self.__transition("cleaned up", self.__close, "unconfigured")

    def on_shutdown(self, state: Any) -> Any:
        """Give everything back, from any state, for good."""
        return self.__transition("shut down", self.__close, "finalized")

    def on_error(self, state: Any) -> Any:
        """After what was not foreseen: give everything back and be unconfigured again."""
        with suppress(Exception):  # it was told already
            self.__close()
        self.__lifecycle = "unconfigured"
        return self.__returns.SUCCESS

    def destroy_node(self) -> Any:
        """Stop everything, whatever the state; no thread is left."""
        with suppress(Exception):  # nobody is left to be told
            self.__close()
        if self.__waiting is not None:
            self.__waiting.destroy()
            self.__waiting = None
        return super().destroy_node()

    # Transitions

    def __transition(self, done: str, do: Callable[[], None], state: str) -> Any:
        """Do what a transition asks; a fault is one line in the log and in the diagnostics, and no change of state."""
        try:
            do()
        except KdEdgeError as error:
            self.__fail(f"not {done}: {error}", error.exit_code)
            return self.__returns.FAILURE
        except Exception as error:  # rclpy would not tell
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
        told = Parameters.of({each.name: self.__value(each.name) for each in PARAMETERS})
        self.__work = Work(self, told, self.__value, self.__messages, self.__waiting, self.__report, self.__labels_over)

    def __activate(self) -> None:
        self.__ended.clear()  # what ended labels before
        self.__configured.start()

    @property
    def __configured(self) -> Work:
        if self.__work is None:
            raise ConfigError("the node is not configured", "one that is", "configure it first")
        return self.__work

    def __close(self) -> None:
        work, self.__work = self.__work, None
        if work is not None:
            work.close()

    def __context_gone(self) -> None:
        """ROS was shut down by somebody else: nothing can be published any more, and no thread is to be left."""
        if self.__work is not None:
            with suppress(Exception):  # nobody is left to be told
                self.__work.stop(tell=False)
        self.over.set()

    # Starting and ending by itself

    def __start_itself(self) -> None:
        """Once, as soon as an executor serves the node."""
        self.destroy_timer(self.__start)
        if not self.__value("autostart") or self.__lifecycle != "unconfigured":
            return
        success = self.__returns.SUCCESS
        if self.trigger_configure() != success or self.trigger_activate() != success:
            self.over.set()

    def __labels_over(self, error: KdEdgeError | None) -> None:
        """From the stream's thread: no label comes any more; what follows is the executor's."""
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
        return WaitServer(self, self.__messages, self.__held, self.__label_message)

    def __held(self) -> Sequence[Prediction]:
        return () if self.__work is None else self.__work.held()

    def __label_message(self, prediction: Prediction) -> Any:
        return self.__messages.label() if self.__work is None else self.__work.label_message(prediction)

    # Diagnostics

    def __ticking(self) -> Any:
        return self.create_timer(self.__value("diagnostics_period_s"), self.__tick, clock=self.__steady)

    def __tick(self) -> None:
        """Once in a period: look at the graph, and say how things are."""
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
        """Publish diagnostics: once in a period, and at once where a state has changed."""
        ros = self.context.handle  # not context.ok(): its lock is held by whoever shuts ROS down and waits for us
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
        """Declare all parameters; one that was given and cannot be has its default, and configuring fails with it."""
        self.add_on_set_parameters_callback(self.__judge)
        for each in PARAMETERS:
            default, descriptor = list(each.default) if each.kind == "strs" else each.default, _descriptor(each)
            try:
                self.declare_parameter(each.name, default, descriptor)
            except Exception as error:  # rclpy's own, of the type or the range of what was given
                self.__wrong[each.name] = self.__fault_of(each, error)
                self.declare_parameter(each.name, default, descriptor, ignore_override=True)
        self.__is_declared = True
        for name in self.__given():
            hint = did_you_mean(name, BY_NAME)
            if hint and not self.has_parameter(name):  # what is like none of them is another node's
                self.get_logger().warning(printable(f"parameter {name} is none of this node's{hint}"))

    def __given(self) -> dict[str, Any]:
        """Parameters of the command line, files and launch; rclpy does not say which of them nobody declares."""
        return dict(getattr(self, "_parameter_overrides", {}))

    def __fault_of(self, parameter: Parameter, error: Exception) -> ConfigError:
        """Why what was given of a parameter cannot be, in the words of ``ros2 param set``."""
        given = self.__given().get(parameter.name)
        told = "" if given is None else refusal(parameter.name, given.value, is_configured=False, is_started=False)
        found, _, expected = told.rpartition(". Expected ")
        return ConfigError(
            found or printable(f"parameter {parameter.name}: {reason(error)}"),
            expected if found else "a value it can have",
            "correct it, or leave it out",
        )

    def __judge(self, parameters: list[Any]) -> Any:
        """Whether parameters may be set now, all or none."""
        told = {"is_configured": self.__work is not None, "is_started": self.__is_declared}
        refused = [why for each in parameters if (why := refusal(each.name, each.value, **told))]
        if self.__is_declared and not refused:
            for each in parameters:
                self.__wrong.pop(each.name, None)
        result = load("rcl_interfaces.msg").SetParametersResult
        return result(successful=not refused, reason=refused[0] if refused else "")


def _descriptor(parameter: Parameter) -> Any:
    """What tools such as rqt show of a parameter."""
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
