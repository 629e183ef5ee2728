"""The ament packages of launch/ros2: what they declare, install and define; built by tools/build_ros_packages.py."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kd_edge import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = sorted((ROOT / "launch/ros2").iterdir())
NODE, MESSAGES = ROOT / "launch/ros2/kd_edge", ROOT / "launch/ros2/kd_edge_msgs"
INSTALLED = ("config", "foxglove", "launch", "rviz")
PROGRAM = NODE / "scripts/action_recognition"
by_name = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def test_these_are_all() -> None:
    assert PACKAGES == [NODE, MESSAGES]


@by_name
def test_package_xml(package: Path) -> None:
    root = ElementTree.parse(package / "package.xml").getroot()
    told = {tag: root.findtext(tag) for tag in ("name", "version", "license")}
    assert (root.tag, root.get("format")) == ("package", "3")
    assert told == {"name": package.name, "version": __version__, "license": "Apache-2.0"}
    assert root.findtext("export/build_type") == "ament_cmake"


@by_name
def test_the_tools_of_ros_take_it(package: Path) -> None:
    catkin_pkg = pytest.importorskip("catkin_pkg.package", reason="catkin-pkg is in the environment with ROS")
    warnings: list[str] = []
    parsed = catkin_pkg.parse_package(str(package), warnings=warnings)
    assert (parsed.name, parsed.version, warnings) == (package.name, __version__, [])


@by_name
def test_cmake_asks_for_what_package_xml_names(package: Path) -> None:
    root = ElementTree.parse(package / "package.xml").getroot()
    named = {each.text for tag in ("buildtool_depend", "build_depend", "depend") for each in root.iter(tag)}
    asked = re.findall(r"find_package\((\w+) REQUIRED\)", (package / "CMakeLists.txt").read_text())
    assert set(asked) == named


def test_every_definition_is_generated() -> None:
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (MESSAGES / "CMakeLists.txt").read_text())
    there = [f"{folder}/{path.name}" for folder in ("msg", "srv", "action") for path in (MESSAGES / folder).iterdir()]
    assert sorted(listed) == sorted(there)


def test_every_file_is_installed() -> None:
    rules = (NODE / "CMakeLists.txt").read_text()
    folders = re.search(r"install\(DIRECTORY (.*) DESTINATION share/\$\{PROJECT_NAME\} PATTERN", rules)
    programs = re.search(r"install\(PROGRAMS (.*) DESTINATION lib/\$\{PROJECT_NAME\}\)", rules)
    assert folders is not None
    assert programs is not None
    there = {path.name for path in NODE.iterdir()} - {"CMakeLists.txt", "package.xml"}
    assert {*folders.group(1).split(), "scripts"} == there
    assert programs.group(1).split() == [f"scripts/{path.name}" for path in (NODE / "scripts").iterdir()]


def test_nothing_hides_the_python_package() -> None:
    """An ament package that installs Python called kd_edge would shadow pip's, and its metadata kd-edge."""
    names = {path.name for path in NODE.rglob("*")}
    assert not names & {"__init__.py", "setup.py", "setup.cfg", "pyproject.toml"}
    assert "ament_python" not in (NODE / "CMakeLists.txt").read_text()


def test_what_colcon_has_installed() -> None:
    """As ``ros2 run`` and ``ros2 launch`` look for it, in the prefix that tools/build_ros_packages.py makes."""
    ament = pytest.importorskip("ament_index_python.packages", reason="ROS 2 is in an environment of its own")
    try:
        prefix = Path(ament.get_package_prefix("kd_edge"))
    except (ament.PackageNotFoundError, OSError):  # OSError: AMENT_PREFIX_PATH is not set
        pytest.skip("not built here: tools/build_ros_packages.py")
    assert os.access(prefix / "lib/kd_edge/action_recognition", os.X_OK)
    there = {path.relative_to(NODE) for name in INSTALLED for path in (NODE / name).iterdir() if path.is_file()}
    share = prefix / "share/kd_edge"
    assert {path.relative_to(share) for name in INSTALLED for path in (share / name).iterdir()} == there
    assert [path.name for path in prefix.glob("lib/python3*/site-packages/kd_edge*")] == [
        path.name for path in prefix.glob("lib/python3*/site-packages/kd_edge_msgs*")
    ]


def test_what_cannot_be_built_is_one_line(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "tools/build_ros_packages.py"
    (tmp_path / "file").touch()
    for arguments, code, said in (
        ((tmp_path / "a", "--packages", "absent"), 2, "invalid choice: 'absent'"),
        ((tmp_path / "file/below",), 1, "Not a directory"),
    ):
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


# Messages


def definitions(text: str, name: str) -> Any:
    typesys = pytest.importorskip("rosbags.typesys")
    return typesys.get_types_from_msg(text, name)[name]


def test_a_label_has_these_fields() -> None:
    constants, fields = definitions((MESSAGES / "msg/ActionLabel.msg").read_text(), "kd_edge_msgs/msg/ActionLabel")
    assert [(name, value) for name, _, value in constants] == [
        ("WARMING", 0), ("OK", 1), ("UNKNOWN", 2), ("STALE", 3), ("DEGRADED", 4)
    ]  # fmt: skip
    assert [name for name, _ in fields] == [
        "header", "source", "state", "label", "index", "confidence", "probabilities", "reason", "detail", "anomaly",
        "valid_until", "frame_number",
    ]  # fmt: skip


def test_an_event_has_these_fields() -> None:
    constants, fields = definitions((MESSAGES / "msg/ActionEvent.msg").read_text(), "kd_edge_msgs/msg/ActionEvent")
    assert [(name, value) for name, _, value in constants] == [("BEGAN", 0), ("ENDED", 1)]
    assert [name for name, _ in fields] == [
        "header", "source", "kind", "label", "confidence", "began", "lasted", "reason"
    ]  # fmt: skip


def test_service_and_action_ask_and_answer_the_same() -> None:
    def parts(path: str) -> list[list[str]]:
        text = re.sub(r"#.*", "", (MESSAGES / path).read_text())
        return [[" ".join(line.split()) for line in part.splitlines() if line.strip()] for part in text.split("---")]

    request, response = parts("srv/WaitForLabel.srv")
    assert request == [
        "string label", "string source", "float32 min_confidence", "builtin_interfaces/Duration timeout"
    ]  # fmt: skip
    assert response == ["bool success", "ActionLabel label", "string message"]
    assert parts("action/WaitForLabel.action") == [request, response, ["ActionLabel label"]]


@pytest.mark.parametrize("path", sorted(MESSAGES.glob("*/WaitForLabel.*")) + sorted(MESSAGES.glob("msg/*")), ids=str)
def test_rosidl_takes_it(path: Path) -> None:
    parser = pytest.importorskip("rosidl_adapter.parser", reason="rosidl is in the environment with ROS")
    parse = {".msg": parser.parse_message_file, ".srv": parser.parse_service_file, ".action": parser.parse_action_file}
    parse[path.suffix]("kd_edge_msgs", str(path))


# The program


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "KD_EDGE_PYTHON"}
    return subprocess.run(
        [*map(str, command)], env=kept | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_may_be_run() -> None:
    assert PROGRAM.stat().st_mode & stat.S_IXUSR
    assert PROGRAM.read_text().startswith("#!/usr/bin/env python3\n")


def test_it_goes_on_in_the_python_that_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" "[$KD_EDGE_PYTHON]"\n')
    python.chmod(0o755)
    done = run(sys.executable, PROGRAM, "--ros-args", "-p", "threads:=2", KD_EDGE_PYTHON=str(python))
    assert (done.returncode, done.stdout) == (0, f"{PROGRAM} --ros-args -p threads:=2 []\n")


def test_a_python_that_is_none_is_one_line() -> None:
    done = run(sys.executable, PROGRAM, KD_EDGE_PYTHON="/no/such/python")
    assert (done.returncode, done.stderr) == (
        1,
        "KD_EDGE_PYTHON=/no/such/python: No such file or directory. "
        "Expected the Python of the environment that has kd-edge\n",
    )


def test_a_python_without_kd_edge_is_one_line() -> None:
    done = run(sys.executable, "-I", "-S", PROGRAM)
    assert (done.returncode, done.stderr) == (
        1,
        f"{sys.executable} has no kd-edge. Set KD_EDGE_PYTHON to the Python of the environment that has it\n",
    )


# Parameters and viewers


def test_parameter_file_and_table_say_what_the_node_declares() -> None:
    done = run(sys.executable, ROOT / "tools/check_ros_parameters.py", PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_parameter_file_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is in the environment with ROS")
    from kd_edge.runtime.ros.parameters import PARAMETERS

    told = yaml.safe_load((NODE / "config/action_recognition.yaml").read_text())
    values = told["/**/action_recognition"]["ros__parameters"]
    assert values.pop("use_sim_time") is False
    assert list(values) == [each.name for each in PARAMETERS]
    for each in PARAMETERS:  # ROS tells 5 from 5.0
        assert type(values[each.name]) is {tuple: list}.get(type(each.default), type(each.default)), each.name
        assert each.fault(values[each.name]) == ""


def test_the_foxglove_layout_shows_what_it_configures() -> None:
    layout = json.loads((NODE / "foxglove/action_recognition.json").read_text())

    def panels(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else [*panels(node["first"]), *panels(node["second"])]

    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    topics = set(re.findall(r'"(/[\w/]+)[."]', json.dumps(layout["configById"])))
    assert topics == {
        "/camera/infra1/image_rect_raw",
        "/action_recognition/annotated",
        "/action_recognition/label",
        "/action_recognition/event",
        "/diagnostics",
    }


def test_the_rviz_configuration_shows_picture_and_label() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is in the environment with ROS")
    shown = yaml.safe_load((NODE / "rviz/action_recognition.rviz").read_text())["Visualization Manager"]["Displays"]
    assert [(each["Class"], each["Topic"]["Value"]) for each in shown] == [
        ("rviz_default_plugins/Image", "/image"),
        ("rviz_default_plugins/Image", "/action_recognition/annotated"),
    ]
