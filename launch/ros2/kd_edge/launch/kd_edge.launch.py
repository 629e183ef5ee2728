"""A camera driver and the action recognition node: ros2 launch kd_edge kd_edge.launch.py driver:=realsense."""

from __future__ import annotations

import re

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, LoadComposableNodes, Node
from launch_ros.descriptions import ComposableNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

PACKAGE, NODE, CAMERA = "kd_edge", "action_recognition", "camera"
REALSENSE = {  # stream: its topic below the driver's node, what it sees, the parameter with its profile
    "infra1": ("infra1/image_rect_raw", "nir", "depth_module.infra_profile"),
    "infra2": ("infra2/image_rect_raw", "nir", "depth_module.infra_profile"),
    "depth": ("depth/image_rect_raw", "depth", "depth_module.depth_profile"),
    "color": ("color/image_raw", "rgb", "rgb_camera.color_profile"),
}
BOOLEANS = ["true", "false"]


def arguments() -> list[DeclareLaunchArgument]:
    """Return all arguments; an empty one leaves the value of the parameter file."""
    share = FindPackageShare(PACKAGE)
    return [
        DeclareLaunchArgument(
            "driver",
            default_value="none",
            choices=["realsense", "usb", "none"],
            description="Camera driver to start: realsense2_camera, usb_cam (V4L2 and UVC, thermal too), or none.",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            description="Serial number (realsense; empty: the first) or device file (usb; empty: /dev/video0).",
        ),
        DeclareLaunchArgument(
            "stream",
            default_value="infra1",
            choices=list(REALSENSE),
            description="Which stream of a RealSense is labelled.",
        ),
        DeclareLaunchArgument(
            "profile",
            default_value="640x480x30",
            description="WIDTHxHEIGHTxFPS asked of the driver; a Lepton has 160x120x9.",
        ),
        DeclareLaunchArgument(
            "emitter",
            default_value="auto",
            choices=["auto", "on", "off"],
            description="Dot projector of a RealSense. auto: on for depth, off otherwise, since dots spoil infrared.",
        ),
        DeclareLaunchArgument(
            "pixel_format",
            default_value="mono8",
            description="Of usb_cam: mono8 (GREY), mono16 (Y16, thermal), yuyv2rgb or mjpeg2rgb (colour).",
        ),
        DeclareLaunchArgument(
            "container",
            default_value="",
            description="Running component container that loads the driver. Empty: a process of its own.",
        ),
        DeclareLaunchArgument(
            "topics",
            default_value="",
            description="Image topics to label, separated by commas; NAME=TOPIC names a source. Empty: the driver's.",
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="",
            description="kd-edge's own camera instead of topics: a name, v4l2:/dev/video0, realsense:.",
        ),
        DeclareLaunchArgument(
            "band",
            default_value="",
            choices=["", "nir", "lwir", "depth", "rgb"],
            description="What the topics' cameras see. Empty: as the stream of a RealSense says.",
        ),
        DeclareLaunchArgument("model", default_value="", description="Artifact (.onnx) to label with."),
        DeclareLaunchArgument(
            "parameters",
            default_value=PathJoinSubstitution([share, "config", f"{NODE}.yaml"]),
            description="Parameter file of the node.",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Of the node and the driver."),
        DeclareLaunchArgument(
            "remappings", default_value="", description="FROM:=TO of the node, several separated by spaces."
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=BOOLEANS, description="Time comes from /clock."
        ),
        DeclareLaunchArgument(
            "lifecycle",
            default_value="node",
            choices=["node", "launch", "manager"],
            description="Who configures and activates the node: itself (its parameter autostart), this launch file, "
            "or a lifecycle manager that is started elsewhere.",
        ),
        DeclareLaunchArgument(
            "respawn", default_value="false", choices=BOOLEANS, description="Start a node or driver that ends again."
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="Of the node: debug, info, warn, error."),
        DeclareLaunchArgument(
            "python",
            default_value=EnvironmentVariable("KD_EDGE_PYTHON", default_value=""),
            description="Python in which kd-edge is installed. Empty: the python3 of the PATH.",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=BOOLEANS, description="Start RViz with image and annotated image."
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start what they select."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Action]:
    """Return the actions for driver, node and viewer, once the arguments are known."""
    given = {each.name: LaunchConfiguration(each.name).perform(context) for each in arguments()}
    topics = [topic.strip() for topic in given["topics"].split(",") if topic.strip()] or driver_topics(given)
    started = [*driver(given), *node(given, topics)]
    if given["rviz"] == "true":
        started.append(viewer(given, topics))
    return started


def driver_topics(given: dict[str, str]) -> list[str]:
    """Return the driver's image topics, relative to the namespace."""
    if given["driver"] == "realsense":
        return [f"{CAMERA}/{REALSENSE[given['stream']][0]}"]
    return [f"{CAMERA}/image_raw"] if given["driver"] == "usb" else []


def driver(given: dict[str, str]) -> list[Action]:
    """Return the camera driver, in the named container or as a process."""
    if given["driver"] == "none":
        return []
    if given["driver"] == "realsense":
        program = {"package": "realsense2_camera", "name": CAMERA, "namespace": given["namespace"]}
        program["parameters"] = [realsense(given)]
        executable, plugin = "realsense2_camera_node", "realsense2_camera::RealSenseNodeFactory"
    else:  # usb_cam does not prefix its topics with its name, so the namespace does
        program = {"package": "usb_cam", "name": CAMERA, "namespace": f"{given['namespace']}/{CAMERA}".lstrip("/")}
        program["parameters"] = [usb(given)]
        executable, plugin = "usb_cam_node_exe", "usb_cam::UsbCamNode"
    if given["container"]:
        component = ComposableNode(plugin=plugin, extra_arguments=[{"use_intra_process_comms": True}], **program)
        return [LoadComposableNodes(target_container=given["container"], composable_node_descriptions=[component])]
    return [Node(executable=executable, output="screen", **respawned(given), **program)]


def realsense(given: dict[str, str]) -> dict[str, object]:
    """Return parameters for realsense2_camera 4.55 and newer: one stream only."""
    stream, profile = given["stream"], REALSENSE[given["stream"]][2]
    emits = given["emitter"] == "on" or (given["emitter"] == "auto" and stream == "depth")
    chosen: dict[str, object] = {f"enable_{each}": each == stream for each in REALSENSE}
    width, height, fps = size_and_rate(given)
    chosen |= {profile: f"{width}x{height}x{fps}", "depth_module.emitter_enabled": int(emits)}
    if given["device"]:
        chosen["serial_no"] = ParameterValue(given["device"], value_type=str)  # otherwise its digits become a number
    return chosen


def size_and_rate(given: dict[str, str]) -> tuple[int, int, int]:
    """Parse the profile: width and height in px, frames per second."""
    asked = re.fullmatch("([1-9][0-9]{0,4})x([1-9][0-9]{0,4})x([1-9][0-9]{0,2})", given["profile"])
    if asked is None:
        raise ValueError(f"profile:={given['profile']}. Expected WIDTHxHEIGHTxFPS, such as 640x480x30")
    width, height, fps = map(int, asked.groups())
    return width, height, fps


def usb(given: dict[str, str]) -> dict[str, object]:
    """Return parameters for usb_cam."""
    width, height, fps = size_and_rate(given)
    device = given["device"] or "/dev/video0"
    size = {"image_width": width, "image_height": height, "framerate": float(fps)}
    return {"video_device": device, "pixel_format": given["pixel_format"], "frame_id": CAMERA, **size}


def node(given: dict[str, str], topics: list[str]) -> list[Action]:
    """Return the action recognition node and, with lifecycle:=launch, its transitions to active."""
    environment = {"KD_EDGE_PYTHON": given["python"]} if given["python"] else {}
    made = LifecycleNode(
        package=PACKAGE,
        executable=NODE,
        name=NODE,
        namespace=given["namespace"],
        parameters=[given["parameters"], overrides(given, topics)],
        remappings=[remapping(each) for each in given["remappings"].split()],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        additional_env=environment,
        output="screen",
        **respawned(given),
    )
    return [*driven_to_active(made), made] if given["lifecycle"] == "launch" else [made]


def overrides(given: dict[str, str], topics: list[str]) -> dict[str, object]:
    """Return the parameters set by arguments; they override the parameter file."""
    chosen: dict[str, object] = {
        name: ParameterValue(given[name], value_type=str) for name in ("model", "camera") if given[name]
    }
    if topics:
        chosen["topics"] = topics
    band = given["band"] or (REALSENSE[given["stream"]][1] if given["driver"] == "realsense" else "")
    if band:
        chosen["band"] = band
    if given["use_sim_time"] == "true":
        chosen["use_sim_time"] = True
    if given["lifecycle"] != "node":
        chosen["autostart"] = False
    return chosen


def remapping(text: str) -> tuple[str, str]:
    """Parse FROM:=TO."""
    old, separator, new = text.partition(":=")
    if not (old and separator and new):
        raise ValueError(f"remappings:={text}. Expected FROM:=TO, such as /diagnostics:=/robot/diagnostics")
    return old, new


def respawned(given: dict[str, str]) -> dict[str, object]:
    """Return the respawn arguments; the delay gives a camera time to come back."""
    return {"respawn": given["respawn"] == "true", "respawn_delay": 2.0}


def driven_to_active(made: LifecycleNode) -> list[Action]:
    """Configure the node whenever its process starts, and activate it once it is configured."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(made), transition_id=transition))

    configure = OnProcessStart(target_action=made, on_start=[change(Transition.TRANSITION_CONFIGURE)])
    activate = OnStateTransition(
        target_lifecycle_node=made,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
    )
    return [RegisterEventHandler(configure), RegisterEventHandler(activate)]


def viewer(given: dict[str, str], topics: list[str]) -> Node:
    """Return RViz, showing the first topic."""
    namespace = given["namespace"].strip("/")
    below = f"/{namespace}/" if namespace else "/"
    image = topics[0].rpartition("=")[2] if topics else "image"
    shown = image if image.startswith("/") else f"{below}{image}"
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        arguments=["-d", PathJoinSubstitution([FindPackageShare(PACKAGE), "rviz", f"{NODE}.rviz"])],
        remappings=[("/image", shown), (f"/{NODE}/annotated", f"{below}{NODE}/annotated")],
        parameters=[{"use_sim_time": given["use_sim_time"] == "true"}],
        output="screen",
    )
