"""Checks for common problems with ROS 2: sourced release, Python version, middleware, network and messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kd_edge.doctor.finding import Finding
from kd_edge.doctor.machine import Machine, matching
from kd_edge.errors import did_you_mean, printable

TOPIC = "ROS 2"
OPT = "/opt/ros"
OVERLAY = "launch/ros2"
RANGES = ("OFF", "LOCALHOST", "SUBNET", "SYSTEM_DEFAULT")
DEFAULT_RMW = "rmw_fastrtps_cpp"
MIDDLEWARES = (DEFAULT_RMW, "rmw_cyclonedds_cpp", "rmw_zenoh_cpp", "rmw_connextdds", "rmw_fastrtps_dynamic_cpp")
MOST_DOMAIN = 232
"""Highest domain id for which there are ports."""
EPHEMERAL = range(102, 215)
"""Domain ids whose ports Linux may also assign to other programs."""
RMEM = "/proc/sys/net/core/rmem_max"
ENOUGH_RMEM = 2_000_000
"""Size of a receive buffer that can store a few 16-bit images of 640x480, in bytes."""
NUMPY_1 = ("humble", "jazzy")
"""Releases whose messages are built for NumPy 1."""
WHEELS = "ros-kilted-rclpy ros-kilted-rmw-fastrtps-cpp ros-kilted-sensor-msgs ros-kilted-std-msgs"
BUILD = f"colcon build --base-paths {OVERLAY} --merge-install, then source install/local_setup.bash"


def findings(machine: Machine) -> Iterator[Finding]:
    """Findings about ROS 2; a single one if it is not installed."""
    rclpy = next(machine.modules("rclpy"), None)
    sourced = printable(machine.variable("ROS_DISTRO")[:40])
    there = [printable(path.parent.name) for path in matching(machine.file(OPT), "*/setup.bash")]
    if rclpy is None:
        yield from _absent(machine, sourced, there)
        return
    from_wheels = machine.version("ros-rclpy")
    what = f"rclpy {from_wheels} from wheels" if from_wheels else f"{sourced or 'of an unknown release'}"
    yield Finding("ok", TOPIC, what)
    yield from _python(machine, rclpy, sourced)
    yield from _mixed(machine, from_wheels, sourced)
    yield from _middleware(machine, rclpy)
    yield from _domain(machine)
    yield from _range(machine, sourced)
    yield from _messages(machine)
    yield from _numpy(machine, from_wheels, sourced)
    yield from _buffers(machine)
    yield from _shared_memory(machine)


def _absent(machine: Machine, sourced: str, there: list[str]) -> Iterator[Finding]:
    """Explain a missing rclpy: not installed, not sourced, or built for another Python."""
    if sourced:
        others = _pythons(machine, sourced)
        if others and _name(machine.python) not in others:
            yield _other_python(f"ROS 2 {sourced} is built for Python {', '.join(others)}", machine)
        else:
            yield Finding(
                "problem", TOPIC, f"ROS_DISTRO is {sourced}, and Python does not find its rclpy",
                "a sourced ROS 2", f"source {OPT}/{sourced}/setup.bash; does PYTHONPATH survive (sudo, -I)?",
            )  # fmt: skip
    elif there:
        yield Finding(
            "note", TOPIC, f"{', '.join(there)} is installed and not sourced", "",
            f"source {OPT}/{there[-1]}/setup.bash if it is needed here",
        )  # fmt: skip
    else:
        install = f"install it and source {OPT}/<distro>/setup.bash, or pip install {WHEELS}, if it is needed here"
        yield Finding("note", TOPIC, "it is not installed", "", install)


def _name(python: tuple[int, int]) -> str:
    return f"{python[0]}.{python[1]}"


def _pythons(machine: Machine, distro: str) -> list[str]:
    """Python versions that a release in ``/opt/ros`` is built for."""
    if not re.fullmatch(r"[a-z]+", distro):
        return []
    return sorted(_built_for(machine.file(f"{OPT}/{distro}"), "rclpy"))


def _built_for(prefix: Path, package: str) -> set[str]:
    """Python versions for which a package is installed below a prefix."""
    found = (matching(prefix, f"{lib}/python3.*/*-packages/{package}") for lib in ("lib", "local/lib"))
    return {folder.parents[1].name.removeprefix("python") for folders in found for folder in folders}


def _python(machine: Machine, rclpy: Path, sourced: str) -> Iterator[Finding]:
    """Whether the compiled half of the rclpy that would be imported is for this Python."""
    tags = sorted(
        {tag for file in matching(rclpy, "_rclpy*.so") for tag in re.findall(r"cpython-(\d)(\d+)", file.name)}
    )
    built = [f"{major}.{minor}" for major, minor in tags]
    if built and _name(machine.python) not in built:
        yield _other_python(f"rclpy is built for Python {', '.join(built)}", machine)


def _other_python(found: str, machine: Machine) -> Finding:
    return Finding(
        "problem", TOPIC, f"{found}, and this is {_name(machine.python)}", "the Python of the ROS 2 release",
        "/usr/bin/python3 -m venv --system-site-packages .venv with ROS sourced, and install kd-edge into it",
    )  # fmt: skip


def _mixed(machine: Machine, from_wheels: str, sourced: str) -> Iterator[Finding]:
    """Check whether a sourced ROS shadows the libraries of the wheels."""
    sourced_libraries = [
        folder for folder in machine.listed("LD_LIBRARY_PATH") if folder.is_relative_to(machine.file(OPT))
    ]
    if from_wheels and sourced_libraries:
        yield Finding(
            "problem", TOPIC, f"rclpy {from_wheels} from wheels beside libraries of {sourced or OPT}, which is sourced",
            "one of them", "do not source ROS where the wheels are used, or take a Python without the wheels",
        )  # fmt: skip


def _middleware(machine: Machine, rclpy: Path) -> Iterator[Finding]:
    wanted = machine.variable("RMW_IMPLEMENTATION") or DEFAULT_RMW
    folders = [*machine.listed("LD_LIBRARY_PATH"), *(prefix / "lib" for prefix in machine.listed("AMENT_PREFIX_PATH"))]
    if len(rclpy.parents) > 2:
        folders.append(rclpy.parents[2])  # <prefix>/lib/python3.x/site-packages/rclpy: where wheels put theirs
    names = {file.stem.removeprefix("lib") for folder in folders for file in matching(folder, "librmw_*.so")}
    here = [name for name in MIDDLEWARES if name in names]
    if wanted in names:
        yield Finding("ok", TOPIC, f"middleware {wanted}")
        return
    named = "RMW_IMPLEMENTATION" if machine.variable("RMW_IMPLEMENTATION") else "the default"
    advice = f"RMW_IMPLEMENTATION={here[0]}, or " if here else ""
    dashed = printable(wanted[:60]).replace("_", "-")
    yield Finding(
        "problem", TOPIC, f"the middleware {printable(wanted[:60])} ({named}) is not there{did_you_mean(wanted, here)}",
        f"one of {', '.join(here)}" if here else "a middleware, without which ROS ends the program",
        f"{advice}apt install ros-$ROS_DISTRO-{dashed}, or of wheels pip install ros-kilted-{dashed}",
    )  # fmt: skip


def _domain(machine: Machine) -> Iterator[Finding]:
    text = machine.variable("ROS_DOMAIN_ID")
    if not text:
        yield Finding(
            "note", TOPIC, "ROS_DOMAIN_ID is not set: 0, which every robot has that is not told otherwise", "",
            "export ROS_DOMAIN_ID=1 to 101, the same for all of one robot",
        )  # fmt: skip
    elif not (re.fullmatch("[0-9]{1,9}", text) and int(text) <= MOST_DOMAIN):
        yield Finding(
            "problem", TOPIC, f"ROS_DOMAIN_ID is '{printable(text[:40])}'", f"a whole number, 0 to {MOST_DOMAIN}",
            "export ROS_DOMAIN_ID=1",
        )  # fmt: skip
    elif int(text) in EPHEMERAL:
        yield Finding(
            "note", TOPIC, f"ROS_DOMAIN_ID is {text}: Linux gives its ports (32768 to 60999) to others, too",
            "0 to 101, or 215 to 232", "export ROS_DOMAIN_ID=1",
        )  # fmt: skip
    else:
        yield Finding("ok", TOPIC, f"domain {text}")


def _range(machine: Machine, sourced: str) -> Iterator[Finding]:
    """Check the range of discovery, for which Humble uses a different variable."""
    reach, local = machine.variable("ROS_AUTOMATIC_DISCOVERY_RANGE"), machine.variable("ROS_LOCALHOST_ONLY")
    if sourced == "humble":
        if reach and local != "1":
            yield Finding(
                "note", TOPIC, "Humble does not know ROS_AUTOMATIC_DISCOVERY_RANGE: topics reach the whole network",
                "ROS_LOCALHOST_ONLY=1 where they are for this machine alone", "export ROS_LOCALHOST_ONLY=1",
            )  # fmt: skip
        return
    if reach and reach not in RANGES:
        yield Finding(
            "problem", TOPIC,
            f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{printable(reach[:40])}'{did_you_mean(reach.upper(), RANGES)}",
            f"one of {', '.join(RANGES)}", "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
        )  # fmt: skip
    elif reach == "OFF":
        yield Finding(
            "note", TOPIC, "discovery is off (ROS_AUTOMATIC_DISCOVERY_RANGE=OFF): nodes do not find each other",
            "LOCALHOST or SUBNET", "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
        )  # fmt: skip
    elif local == "1":
        yield Finding(
            "note", TOPIC, "ROS_LOCALHOST_ONLY=1 is deprecated, and wins over ROS_AUTOMATIC_DISCOVERY_RANGE", "",
            "unset ROS_LOCALHOST_ONLY; export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
        )  # fmt: skip
    elif reach in ("", "SUBNET", "SYSTEM_DEFAULT"):
        yield Finding(
            "note", TOPIC, "discovery reaches the whole subnet: images go to whoever subscribes there", "",
            "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST where all nodes are on this machine",
        )  # fmt: skip
    else:
        yield Finding("ok", TOPIC, "discovery stays on this machine")


def _messages(machine: Machine) -> Iterator[Finding]:
    """Check whether kd-edge's messages are built, and for this Python."""
    package = next(machine.modules("kd_edge_msgs"), None)
    if package is not None and matching(package, "*.so"):
        yield Finding("ok", TOPIC, "kd_edge_msgs is built")
        return
    prefixes = machine.listed("AMENT_PREFIX_PATH")
    built = {python for prefix in prefixes for python in _built_for(prefix, "kd_edge_msgs")}
    elsewhere = sorted(built - {_name(machine.python)})
    if elsewhere:
        yield _other_python(f"kd_edge_msgs is built for Python {', '.join(elsewhere)}", machine)
        return
    yield Finding(
        "note", TOPIC, "kd_edge_msgs is not built or not sourced: labels go out as JSON (std_msgs/String)", "",
        f"{BUILD} (colcon: apt install python3-colcon-common-extensions)",
    )  # fmt: skip


def _numpy(machine: Machine, from_wheels: str, sourced: str) -> Iterator[Finding]:
    version = machine.version("numpy")
    if sourced in NUMPY_1 and not from_wheels and version and not version.startswith("1."):
        yield Finding(
            "problem", TOPIC, f"NumPy {version} beside ROS 2 {sourced}, whose messages are built for NumPy 1",
            "NumPy 1 in the environment that uses ROS", "pip install 'numpy<2'",
        )  # fmt: skip


def _buffers(machine: Machine) -> Iterator[Finding]:
    """Check the receive buffers: if they are small, best-effort subscriptions lose images."""
    text = machine.text(RMEM).strip()
    if text.isdecimal() and int(text) < ENOUGH_RMEM:
        yield Finding(
            "note", TOPIC, f"receive buffers hold {int(text)} bytes: best effort loses large images (16 bits)", "",
            f"reliability:=reliable for the topic, or sudo sysctl -w net.core.rmem_max={ENOUGH_RMEM * 4}",
        )  # fmt: skip


def _shared_memory(machine: Machine) -> Iterator[Finding]:
    """Check shared memory: Fast DDS uses it for large messages, and other users' processes may not read it."""
    owners = set()
    for pattern in ("fastdds_*", "fastrtps_*"):
        for segment in matching(machine.file("/dev/shm"), pattern):  # noqa: S108 - it is only read
            with suppress(OSError):  # the segment has been removed
                owners.add(segment.stat().st_uid)
    if others := sorted(owners - {machine.user}):
        who = ", ".join(map(str, others))
        yield Finding(
            "note",
            TOPIC,
            f"user id {who} has nodes here, too: their topics are seen, and no image comes",
            "nodes of one user, or one side without /dev/shm",
            "launch/kd-edge-ros.service shows how (InaccessiblePaths)",
        )
