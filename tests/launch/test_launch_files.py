"""The launch files, run under a fake of ``launch`` and ``launch_ros`` that records what they declare."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from tests.launch import fake_launch
from tests.launch.fake_launch import (
    EmitEvent,
    ExecuteProcess,
    LifecycleNode,
    LoadComposableNodes,
    Node,
    OnProcessStart,
    OnStateTransition,
    ParameterValue,
    RegisterEventHandler,
    Shutdown,
    declared,
    launched,
    performed,
)

PACKAGE = fake_launch.PACKAGES / "kd_edge"
README = PACKAGE.parents[1] / "README.md"
BRING_UP, BAG = PACKAGE / "launch/kd_edge.launch.py", PACKAGE / "launch/bag.launch.py"
FILE = str(PACKAGE / "config/action_recognition.yaml")


def the_node(started: list[Any]) -> LifecycleNode:
    (found,) = (each for each in started if isinstance(each, LifecycleNode))
    return found


def overridden(started: list[Any]) -> dict[str, Any]:
    file, overrides = the_node(started).parameters
    assert file == FILE
    return overrides


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("launch/*.py")), ids=lambda path: path.name)
def test_it_is_python_3_10(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 10))  # what Humble has


def test_every_launch_file_is_tested() -> None:
    assert {BRING_UP, BAG} == set((PACKAGE / "launch").iterdir()) - {PACKAGE / "launch/__pycache__"}


def test_every_argument_is_documented() -> None:
    section = README.read_text().partition("\n## Launch arguments\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    told = {name: (default, what) for name, default, what in rows}
    context = fake_launch.LaunchContext({})
    arguments = declared(BRING_UP) | declared(BAG)
    assert sorted(told) == sorted(arguments)
    for name, argument in arguments.items():
        assert argument.description, name
        default, what = told[name]
        if argument.default_value is not None and name != "parameters":
            wanted = performed(argument.default_value, context)
            assert default == (f"`{wanted}`" if wanted else "empty"), name
        told_without = ("", "true", "false")
        assert all(f"`{choice}`" in what for choice in argument.choices or () if choice not in told_without), name


def test_without_arguments_it_starts_the_node_alone() -> None:
    (started,) = launched(BRING_UP)
    assert isinstance(started, LifecycleNode)
    assert (started.package, started.executable, started.name) == (
        "kd_edge",
        "action_recognition",
        "action_recognition",
    )
    assert (started.namespace, started.remappings, started.additional_env) == ("", [], {})
    assert (started.arguments, started.respawn) == (["--ros-args", "--log-level", "info"], False)
    assert overridden([started]) == {}  # the parameter file says it all


def test_a_realsense_gives_one_infrared_stream_without_dots() -> None:
    driver, node = launched(BRING_UP, driver="realsense", namespace="left")
    assert type(driver) is Node
    assert (driver.package, driver.executable) == ("realsense2_camera", "realsense2_camera_node")
    assert (driver.namespace, driver.name, node.namespace) == ("left", "camera", "left")
    assert driver.parameters == [
        {
            "enable_infra1": True,
            "enable_infra2": False,
            "enable_depth": False,
            "enable_color": False,
            "depth_module.infra_profile": "640x480x30",
            "depth_module.emitter_enabled": 0,
        }
    ]
    assert overridden([node]) == {"topics": ["camera/infra1/image_rect_raw"], "band": "nir"}


def test_depth_needs_the_dots() -> None:
    driver, node = launched(BRING_UP, driver="realsense", stream="depth", profile="848x480x30", device="012345678901")
    (chosen,) = driver.parameters
    assert chosen["depth_module.emitter_enabled"] == 1
    assert chosen["depth_module.depth_profile"] == "848x480x30"
    assert chosen["serial_no"] == ParameterValue("012345678901", value_type=str)  # not a number, nor an octal one
    assert overridden([node]) == {"topics": ["camera/depth/image_rect_raw"], "band": "depth"}


@pytest.mark.parametrize(
    ("emitter", "stream", "enabled"), [("on", "infra1", 1), ("off", "depth", 0), ("auto", "color", 0)]
)
def test_the_emitter_is_as_it_is_told(emitter: str, stream: str, enabled: int) -> None:
    driver, _ = launched(BRING_UP, driver="realsense", emitter=emitter, stream=stream)
    assert driver.parameters[0]["depth_module.emitter_enabled"] == enabled


@pytest.mark.parametrize(("namespace", "whole"), [("", "camera"), ("/left", "left/camera")])
def test_a_thermal_camera_over_uvc(namespace: str, whole: str) -> None:
    driver, node = launched(
        BRING_UP, driver="usb", device="/dev/video2", pixel_format="mono16", profile="160x120x9", band="lwir",
        namespace=namespace,
    )  # fmt: skip
    assert (driver.package, driver.executable, driver.name, driver.namespace) == (
        "usb_cam", "usb_cam_node_exe", "camera", whole
    )  # fmt: skip
    assert driver.parameters == [
        {
            "video_device": "/dev/video2",
            "pixel_format": "mono16",
            "frame_id": "camera",
            "image_width": 160,
            "image_height": 120,
            "framerate": 9.0,
        }
    ]
    assert isinstance(driver.parameters[0]["framerate"], float)  # usb_cam refuses a whole number
    assert overridden([node]) == {"topics": ["camera/image_raw"], "band": "lwir"}


@pytest.mark.parametrize(
    ("driver", "plugin"),
    [("realsense", "realsense2_camera::RealSenseNodeFactory"), ("usb", "usb_cam::UsbCamNode")],
)
def test_the_driver_is_loaded_into_a_container(driver: str, plugin: str) -> None:
    loading, _ = launched(BRING_UP, driver=driver, container="/perception")
    assert isinstance(loading, LoadComposableNodes)
    assert loading.target_container == "/perception"
    (component,) = loading.composable_node_descriptions
    assert (component.plugin, component.extra_arguments) == (plugin, [{"use_intra_process_comms": True}])


def test_arguments_reach_the_node() -> None:
    started = launched(
        BRING_UP,
        topics="left=/l/image, /r/image/compressed",
        camera="v4l2:/dev/video0",
        model="12",
        remappings="/diagnostics:=/robot/diagnostics ~/label:=/action",
        log_level="debug",
        python="/opt/kd-edge/.venv/bin/python",
        respawn="true",
        use_sim_time="true",
    )
    node = the_node(started)
    assert overridden(started) == {
        "topics": ["left=/l/image", "/r/image/compressed"],
        "camera": ParameterValue("v4l2:/dev/video0", value_type=str),
        "model": ParameterValue("12", value_type=str),
        "use_sim_time": True,
    }
    assert node.remappings == [("/diagnostics", "/robot/diagnostics"), ("~/label", "/action")]
    assert node.arguments == ["--ros-args", "--log-level", "debug"]
    assert node.additional_env == {"KD_EDGE_PYTHON": "/opt/kd-edge/.venv/bin/python"}
    assert (node.respawn, node.respawn_delay) == (True, 2.0)


def test_the_environment_names_the_python() -> None:
    (node,) = launched(BRING_UP, environment={"KD_EDGE_PYTHON": "/venv/bin/python"})
    assert node.additional_env == {"KD_EDGE_PYTHON": "/venv/bin/python"}


def test_a_lifecycle_manager_finds_the_node_unconfigured() -> None:
    (node,) = launched(BRING_UP, lifecycle="manager")
    assert overridden([node]) == {"autostart": False}


def test_launch_drives_the_node_to_active_each_time_it_starts() -> None:
    at_start, when_configured, node = launched(BRING_UP, lifecycle="launch", respawn="true")
    assert overridden([node]) == {"autostart": False}
    assert isinstance(at_start, RegisterEventHandler)
    assert isinstance(when_configured, RegisterEventHandler)
    starts, configured = at_start.event_handler, when_configured.event_handler
    assert isinstance(starts, OnProcessStart)
    assert starts.target_action is node
    assert changes(starts.on_start) == [(node, 1)]  # configure
    assert isinstance(configured, OnStateTransition)
    assert configured.target_lifecycle_node is node
    assert (configured.start_state, configured.goal_state) == ("configuring", "inactive")  # not after deactivating
    assert changes(configured.entities) == [(node, 3)]  # activate


def changes(emitted: Any) -> list[tuple[Any, int]]:
    assert all(isinstance(each, EmitEvent) for each in emitted)
    return [(each.event.lifecycle_node_matcher.action, each.event.transition_id) for each in emitted]


def test_rviz_shows_the_picture_that_is_labelled() -> None:
    *_, viewer = launched(BRING_UP, driver="realsense", namespace="left", rviz="true")
    assert (viewer.package, viewer.executable) == ("rviz2", "rviz2")
    assert viewer.remappings == [
        ("/image", "/left/camera/infra1/image_rect_raw"),
        ("/action_recognition/annotated", "/left/action_recognition/annotated"),
    ]
    *_, viewer = launched(BRING_UP, topics="a=/cam/image,b=/other", rviz="true")
    assert viewer.remappings[0] == ("/image", "/cam/image")
    shown = Path(performed(viewer.arguments[1], fake_launch.LaunchContext({})))
    assert shown.is_file()


@pytest.mark.parametrize("driver", ["usb", "realsense"])
@pytest.mark.parametrize(
    "profile",
    [
        "",
        "640x480",
        "640x480x30x1",
        "axbxc",
        "-1x480x30",
        "640 480 30",
        "0x480x30",
        "640x480x0",
        "٣x480x30",
        "9" * 5000,
    ],
)
def test_a_profile_that_is_none_is_one_line(driver: str, profile: str) -> None:
    with pytest.raises(ValueError, match=r"^profile:=.*Expected WIDTHxHEIGHTxFPS, such as 640x480x30$"):
        launched(BRING_UP, driver=driver, profile=profile)


@pytest.mark.parametrize("remappings", ["label", ":=b", "a:=", "a:b"])
def test_a_remapping_that_is_none_is_one_line(remappings: str) -> None:
    with pytest.raises(ValueError, match=r"^remappings:=.*Expected FROM:=TO"):
        launched(BRING_UP, remappings=remappings)


@pytest.mark.parametrize(
    "argument", ["driver", "stream", "emitter", "band", "lifecycle", "use_sim_time", "respawn", "rviz"]
)
def test_an_argument_has_its_choices_only(argument: str) -> None:
    with pytest.raises(RuntimeError, match=f"Argument '{argument}' is not in the valid options"):
        launched(BRING_UP, **{argument: "maybe"})


def test_a_bag_is_played_once_the_node_is_active() -> None:
    playing, *_, node = launched(BAG, bag="/bags/one", rate="4.0", topics="/image", model="m.onnx")
    handler = playing.event_handler
    assert isinstance(handler, OnStateTransition)
    assert (handler.goal_state, handler.handle_once) == ("active", True)
    (play,) = handler.entities
    assert isinstance(play, ExecuteProcess)
    assert play.cmd == [
        "ros2", "bag", "play", "/bags/one", "--rate", "4.0", "--clock", "200", "--disable-keyboard-controls"
    ]  # fmt: skip
    (shutdown,) = play.on_exit
    assert isinstance(shutdown, Shutdown)
    assert overridden([node]) == {
        "topics": ["/image"],
        "model": ParameterValue("m.onnx", value_type=str),
        "use_sim_time": True,
        "autostart": False,
    }


def test_a_bag_can_go_on_for_ever_and_must_be_named() -> None:
    playing, *_ = launched(BAG, bag="b", loop="true")
    assert playing.event_handler.entities[0].cmd[-1] == "--loop"
    with pytest.raises(RuntimeError, match="Required launch argument 'bag'"):
        launched(BAG)
