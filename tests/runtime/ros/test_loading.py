"""What is said where ROS 2 is absent, of another Python, or lacks its middleware; no ROS is needed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from kd_edge.errors import CameraError, ConfigError
from kd_edge.runtime.cameras import open_camera
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.listing import list_cameras
from kd_edge.runtime.ros.loading import check_domain, load, start_fault


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without ROS."""
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    for name in ("rclpy", "sensor_msgs"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("absent")
def test_rclpy_absent_is_one_line_that_says_where_it_comes_from() -> None:
    with pytest.raises(ConfigError) as caught:
        open_camera("ros2:/camera/image_raw")
    assert str(caught.value) == (
        "ROS 2's Python package 'rclpy' is not installed. Expected a sourced ROS 2, or its wheels. Fix: source "
        "/opt/ros/$ROS_DISTRO/setup.bash, or pip install ros-kilted-rclpy ros-kilted-rmw-fastrtps-cpp "
        "ros-kilted-sensor-msgs ros-kilted-std-msgs"
    )


@pytest.mark.usefixtures("absent")
def test_topics_cannot_be_listed_without_it_and_cameras_can() -> None:
    assert list_cameras().configured
    with pytest.raises(ConfigError, match="ROS 2's Python package 'rclpy' is not installed"):
        list_cameras(ros=True)


@pytest.mark.usefixtures("absent")
def test_messages_absent_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'sensor_msgs' is not installed.*pip install ros-kilted-sensor-msgs$"):
        load("sensor_msgs")


def test_a_middleware_that_is_not_there_is_told_before_ros_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rclpy", raising=False)
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_nobody_cpp")
    with pytest.raises(ConfigError) as caught:
        load()
    line = str(caught.value)
    assert line.startswith("RMW_IMPLEMENTATION is 'rmw_nobody_cpp', which cannot be loaded (librmw_nobody_cpp.so")
    assert "pip install ros-kilted-rmw-fastrtps-cpp" in line
    assert "RMW_IMPLEMENTATION=rmw_fastrtps_cpp, or unset it" in line


def test_what_keeps_ros_from_starting_is_told_apart() -> None:
    lacks = start_fault(OSError("librmw_fastrtps_cpp.so: cannot open shared object file: No such file"))
    assert str(lacks).startswith("ROS 2 cannot load its middleware (librmw_fastrtps_cpp.so: cannot open")
    other = start_fault(ModuleNotFoundError("No module named 'rclpy._rclpy_pybind11'", name="rclpy._rclpy_pybind11"))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert str(other).startswith(f"rclpy was built for a different Python than this one ({python})")
    unknown = start_fault(RuntimeError("failed to initialize rcl: no room\nand more"))
    assert str(unknown).startswith("ROS 2 cannot be used: rclpy: failed to initialize rcl: no room. Expected ")


@pytest.mark.parametrize("domain", ["abc", "-1", "233", "1.5", " 4"])
def test_a_domain_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(ConfigError, match=f"ROS_DOMAIN_ID is {domain!r}. Expected a whole number, 0 to 232"):
        check_domain(None)
    check_domain(7)


def test_domains_that_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    for domain in ("", "0", "232"):
        monkeypatch.setenv("ROS_DOMAIN_ID", domain)
        check_domain(None)
    with pytest.raises(ConfigError, match="domain is '233'"):
        check_domain(233)


@pytest.mark.slow
def test_nothing_of_ros_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, kd_edge.runtime.ros, kd_edge.runtime.ros.topic, kd_edge.runtime.ros.camera, kd_edge.runtime;"
        "sys.exit('rclpy' in sys.modules or 'sensor_msgs' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_public_names_are_there_and_a_wrong_one_is_an_attribute_error() -> None:
    module = importlib.import_module("kd_edge.runtime.ros")
    assert {"ImageTopic", "RosClock", "TopicCamera"} <= set(module.__all__)
    assert module.ImageTopic.__module__ == "kd_edge.runtime.ros.topic"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("ros2:", "names no topic"),
        ("ros2:camera 1", "'camera 1' is not a topic name"),
        ("ros2://camera/image", "'//camera/image' is not a topic name"),
        ("ros2:/1camera", "'/1camera' is not a topic name"),
        ("ros2:~/image", "'~/image' is not a topic name"),
        ("ros2:/image?reliability=sometimes", "reliability"),
        ("ros2:/image?depth=0", "depth"),
        ("ros2:/image?domain=233", "domain"),
        ("ros2:/image?reliabilty=reliable", "did you mean 'reliability'"),
        ("ros2:/image?exposure_us=5", "sets exposure_us, which no ros2: camera has"),
        ("v4l2:/dev/video0?reliability=reliable", "sets reliability, which no v4l2: camera has"),
        ("ros2:/image?clock=monotonic", "sets clock = monotonic"),
        ("ros:/image", "did you mean 'ros2'"),
        ("/camera/infra1/image_rect_raw", "--camera ros2:/camera/infra1/image_rect_raw"),
    ],
)
def test_what_is_wrong_with_a_uri_is_one_line_and_ros_is_not_asked(uri: str, told: str) -> None:
    with pytest.raises((ConfigError, CameraError)) as caught:
        open_camera(uri)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_camera_file_sets_what_a_uri_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runtime/cameras"
    folder.mkdir(parents=True)
    (folder / "left.toml").write_text(
        'uri = "ros2:/left/image"\nreliability = "best_effort"\ndepth = 10\nclock = "device"\nband = "nir"\n'
        'durability = "transient_local"\ncompressed = true\ndomain = 7\nopen_timeout_ms = 2000\n'
    )
    keys = "reliability=best_effort&depth=10&clock=device&band=nir&durability=transient_local"
    more = "compressed=true&domain=7&open_timeout_ms=2000"
    assert camera_config("left") == camera_config(f"ros2:/left/image?{keys}&{more}")
    config = camera_config("left")
    assert (config.scheme, config.target, config.depth, config.compressed) == ("ros2", "/left/image", 10, True)
    assert {c.name: c.present for c in list_cameras().configured}["left"] is None  # only opening it would tell
    (folder / "left.toml").write_text('uri = "ros2:/left/image"\nexposure_us = 5\n')
    with pytest.raises(ConfigError, match="sets exposure_us, which no ros2: camera has"):
        camera_config("left")
