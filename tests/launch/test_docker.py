"""Images and compose file: linters' verdict, and what they promise read off them. No image is built here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.launch.tools import missing, tool

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "launch/docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
USER = "10001"


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction with its arguments; continued lines are joined."""
    text = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def stages(file: Path) -> list[list[tuple[str, str]]]:
    """Instructions of each stage, ``FROM`` first."""
    found: list[list[tuple[str, str]]] = []
    for each in instructions(file):
        if each[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(each)
    return found


def values(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for each, rest in stage if each == name]


def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("ruamel.yaml", reason="no YAML reader")
    loaded: dict[str, Any] = yaml.YAML(typ="safe", pure=True).load((DOCKER / "compose.yaml").read_text())
    return loaded


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [file.stem for file in FILES] == ["cpu", "cuda", "jetpack6", "jetpack7", "ros"]


@EACH
def test_a_linter_finds_no_fault(file: Path) -> None:
    done = subprocess.run(
        [tool("hadolint", "hadolint"), "--no-color", file], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


@EACH
def test_bases_are_pinned_by_tag(file: Path) -> None:
    known = {rest.partition("=")[0]: rest.partition("=")[2] for name, rest in instructions(file) if name == "ARG"}
    names = {stage[0][1].partition(" AS ")[2] for stage in stages(file)}
    bases = {stage[0][1].partition(" AS ")[0] for stage in stages(file)} - names
    bases = {known[base.strip("${}")] if base.startswith("$") else base for base in bases}
    assert bases
    assert [base for base in bases if not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*|ros:[a-z-]+", base)] == []
    assert not any("latest" in base for base in bases)


@EACH
def test_what_runs_is_no_root(file: Path) -> None:
    for stage in stages(file):
        if values(stage, "CMD"):
            assert values(stage, "USER") == [USER]
    assert values(stages(file)[-1], "USER") == [USER]


@EACH
def test_health_is_asked(file: Path) -> None:
    (check,) = values(stages(file)[-1], "HEALTHCHECK")
    assert "healthy" in check or "/action_recognition" in check


@EACH
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for stage in stages(file):
        for copy in values(stage, "COPY"):
            words = [word for word in copy.split() if not word.startswith("--")]
            if "--from=" in copy or words[0] in (".", "launch/ros2"):  # the messages are built from launch/ros2
                continue
            assert (ROOT / words[0]).exists(), words[0]
            assert any(words[0] == each or words[0].startswith(f"{each}/") for each in kept)


def test_nothing_but_the_sources_gets_into_an_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.partition("/")[0] for path in built["only-include"]}
    assert folders | {"LICENSE", "README.md", "pyproject.toml"} == {line[1:] for line in lines if line.startswith("!")}


@EACH
def test_extras_exist(file: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for part in re.findall(r"'\.\[([\w,-]+)\]'", file.read_text()) for extra in part.split(",")}
    assert named
    assert named <= set(extras)


@EACH
def test_options_of_the_command_exist(file: Path) -> None:
    from kd_edge.cli import app

    words = json.loads(values(stages(file)[-1], "CMD")[0])
    if words[0] != "run":
        assert words[:2] == ["python", "-c"]
        assert words[2] == "from kd_edge.runtime.ros import main; raise SystemExit(main())"
        return
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output)
    assert [word for word in words if word.startswith("--") and word not in text] == []


@pytest.mark.slow
def test_compose_says_what_it_says() -> None:
    command = ["docker", "compose"] if _answers(["docker", "compose", "version"]) else ["docker-compose"]
    if not _answers([*command, "version"]):
        missing("docker-compose", "no docker compose here")
    done = subprocess.run(
        [*command, "-f", DOCKER / "compose.yaml", "config", "--quiet"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def _answers(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_compose_starts_camera_node_and_viewer_with_few_rights() -> None:
    services = compose()["services"]
    assert list(services) == ["camera", "node", "viewer"]
    targets = {stage[0][1].partition(" AS ")[2] for stage in stages(DOCKER / "ros.Dockerfile")}
    for service in services.values():
        assert (service["network_mode"], service["ipc"]) == ("host", "none")
        assert service["environment"]["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert (service["restart"], service["read_only"], service["cap_drop"]) == ("unless-stopped", True, ["ALL"])
        assert "privileged" not in service
        assert service["build"]["target"] in targets
        context = (DOCKER / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).samefile(DOCKER / "ros.Dockerfile")
    assert services["camera"]["group_add"] == ["video", "plugdev"]
    assert [name for name, service in services.items() if "device_cgroup_rules" in service] == ["camera"]


@pytest.mark.parametrize(
    ("label", "code", "said"),
    [
        ({"state": "ok", "age": 1}, 0, "fresh"),
        ({"state": "unknown", "age": 1}, 0, "fresh"),
        ({"state": "stale", "age": 1}, 1, "state stale"),
        ({"state": "ok", "age": 60}, 1, "60 s old"),
        ({"state": "ok", "age": -60}, 1, "-60 s old"),  # of before the machine was started again
        ({"age": 1}, 1, "KeyError"),
        ("no json", 1, "JSONDecodeError"),
        (None, 1, "IndexError"),
    ],
)
def test_health_is_that_of_the_newest_label(tmp_path: Path, label: Any, code: int, said: str) -> None:
    file = tmp_path / "labels.jsonl"
    line = "" if label is None else f"{label}\n"
    if isinstance(label, dict):
        line = json.dumps({**label, "emitted_ns": time.monotonic_ns() - label["age"] * 10**9}) + "\n"
    file.write_text("not this one\n" * (label is not None) + line + '{"state": "ok", "half a li')
    done = subprocess.run([sys.executable, DOCKER / "healthy", file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, said in done.stdout, done.stderr) == (code, True, "")


def test_seconds_that_are_no_number_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run([DOCKER / "healthy", tmp_path / "a", "soon"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "ValueError: could not convert string to float: 'soon'\n",
        "",
    )


def test_without_a_label_it_is_not_healthy(tmp_path: Path) -> None:
    done = subprocess.run([DOCKER / "healthy", tmp_path / "absent"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "FileNotFoundError" in done.stdout) == (1, True)


def test_with_ros_sources_and_becomes_the_command() -> None:
    script = (DOCKER / "with-ros").read_text()
    assert subprocess.run(["/bin/bash", "-n", DOCKER / "with-ros"], timeout=60).returncode == 0
    assert script.rstrip().endswith('exec "$@"')
    done = subprocess.run(
        ["/bin/bash", DOCKER / "with-ros", "true"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"ROS_DISTRO": "none"},
    )
    assert done.returncode == 1
    assert "/opt/ros/none/setup.bash" in done.stderr
