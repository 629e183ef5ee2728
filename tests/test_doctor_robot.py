"""What the doctor says of ROS 2 and Jetsons, on file systems and environments that are made up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kd_edge.doctor import Finding, jetson, ros
from kd_edge.doctor.machine import Machine
from kd_edge.errors import BrokenPackageError

R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
R39 = "# R39 (release), REVISION: 2.0, GCID: 41000000, BOARD: generic, EABI: aarch64\n"
ORIN = "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0"
THOR = "nvidia,p4071-0000+p3834-0008\0nvidia,tegra264\0"
SITE = "/venv/lib/python3.12/site-packages"
JAZZY = "/opt/ros/jazzy"
DLA = "libnvdla_compiler.so: cannot open shared object file: No such file or directory"

Make = Callable[..., Machine]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A machine of these files, with this environment."""

    def made(
        files: dict[str, str] | None = None,
        *,
        python: tuple[int, int] = (3, 12),
        architecture: str = "aarch64",
        path: tuple[str, ...] = (SITE,),
        is_other: bool = False,
        **environment: str,
    ) -> Machine:
        for name, text in (files or {}).items():
            file = tmp_path / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Machine(tmp_path, environment, python, path, architecture, os.geteuid() + is_other)

    return made


def distribution(name: str, version: str) -> dict[str, str]:
    file = f"{SITE}/{name.replace('-', '_')}-{version}.dist-info/METADATA"
    return {file: f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}


def on(release: str, chip: str = ORIN) -> dict[str, str]:
    return {"/etc/nv_tegra_release": release, "/proc/device-tree/compatible": chip}


def told(findings: object, level: str) -> list[str]:
    return [f.found for f in findings if f.level == level]  # type: ignore[attr-defined]


def test_other_machines_hear_nothing_of_jetsons(make: Make) -> None:
    assert list(jetson.findings(make(architecture="x86_64"))) == []
    assert list(jetson.findings(make(distribution("tensorrt-cu13", "10.13.3")))) == []


def test_a_jetson_is_named(make: Make) -> None:
    assert told(jetson.findings(make(on(R39))), "ok") == ["Orin, Jetson Linux R39.2.0"]
    assert told(jetson.findings(make(on(R36) | {"/.dockerenv": ""})), "ok") == [
        "Orin, Jetson Linux R36.4.3 in a container"
    ]


def test_a_container_without_nvidias_runtime(make: Make) -> None:
    first = next(jetson.findings(make({"/proc/device-tree/compatible": THOR, "/run/.containerenv": ""})))
    assert first == Finding(
        "note",
        "jetson",
        "Thor, Jetson Linux of an unknown release in a container (/etc/nv_tegra_release is not there)",
        "the NVIDIA runtime, which brings the driver",
        "docker run --runtime nvidia, or default-runtime in /etc/docker/daemon.json",
    )


def test_what_no_container_on_r39_can_have(make: Make) -> None:
    error = BrokenPackageError(f"module 'tensorrt' cannot be imported ({DLA})", "a whole one", "install it")
    finding = jetson.explained(error, make(on(R39) | {"/.dockerenv": ""}))
    assert finding is not None
    assert finding.level == "problem"
    assert finding.found.startswith("this TensorRT needs libnvdla_compiler.so, which Jetson Linux R39 no longer has")
    assert "no -igpu" in finding.expected
    assert "jetpack7.Dockerfile" in finding.fix


def test_what_a_container_on_r36_gets_from_the_host(make: Make) -> None:
    error = BrokenPackageError(f"module 'tensorrt' cannot be imported ({DLA})", "a whole one", "install it")
    finding = jetson.explained(error, make(on(R36)))
    assert finding is not None
    assert finding.fix == "sudo apt install nvidia-l4t-dla-compiler on the host, and docker run --runtime nvidia"
    assert jetson.explained(BrokenPackageError("libGL.so.1: no", "a", "b"), make(on(R36))) is None


@pytest.mark.parametrize(
    ("release", "chip", "name", "version", "is_wrong"),
    [
        (R39, ORIN, "tensorrt-cu13-libs", "10.13.3.9", True),
        (R39, ORIN, "tensorrt-cu13-libs", "10.16.1.11", False),
        (R39, ORIN, "tensorrt-cu13", "11.4.1", False),
        (R36, ORIN, "tensorrt-cu12", "10.7.0", True),
        (R36, ORIN, "tensorrt-cu12", "10.16.1", True),
        (R36, ORIN, "tensorrt", "10.3.0", False),  # JetPack's own
        (R39, THOR, "tensorrt-cu13", "10.13.3", False),
    ],
)
def test_tensorrt_for_servers_on_an_orin(
    make: Make, release: str, chip: str, name: str, version: str, is_wrong: bool
) -> None:
    problems = told(jetson.findings(make(on(release, chip) | distribution(name, version))), "problem")
    wrong = f"{name} {version} from PyPI is for Arm servers: it has no kernels for Orin (SM 87)"
    assert problems == ([wrong] if is_wrong else [])


def test_onnxruntime_has_no_gpu_on_jetpack_7(make: Make) -> None:
    (note,) = told(jetson.findings(make(on(R39))), "note")
    assert note == "PyPI has no onnxruntime-gpu for aarch64, so ONNX Runtime runs on the CPU here (JetPack 7)"
    community = make(on(R39) | distribution("onnxruntime-gpu", "1.28.0"))
    assert told(jetson.findings(community), "note") == []


def ros_files(python: str = "3.12") -> dict[str, str]:
    tag = python.replace(".", "")
    site = f"{JAZZY}/lib/python{python}/site-packages"
    return {
        f"{JAZZY}/setup.bash": "",
        f"{site}/rclpy/__init__.py": "",
        f"{site}/rclpy/_rclpy_pybind11.cpython-{tag}-aarch64-linux-gnu.so": "",
        f"{JAZZY}/lib/librmw_fastrtps_cpp.so": "",
        f"{JAZZY}/lib/librmw_fastrtps_shared_cpp.so": "",
        f"{JAZZY}/lib/librmw_implementation.so": "",
        f"{JAZZY}/lib/librmw_dds_common__rosidl_typesupport_fastrtps_cpp.so": "",
        "/proc/sys/net/core/rmem_max": "212992\n",
    }


@pytest.fixture
def sourced(make: Make) -> Make:
    """A machine with ROS 2 Jazzy, sourced, all in order but for what is said otherwise."""

    def made(files: dict[str, str] | None = None, **said: object) -> Machine:
        environment = {
            "ROS_DISTRO": "jazzy",
            "LD_LIBRARY_PATH": f"{JAZZY}/lib",
            "AMENT_PREFIX_PATH": JAZZY,
            "ROS_DOMAIN_ID": "7",
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        }
        path = said.pop("path", (SITE, f"{JAZZY}/lib/python3.12/site-packages"))
        python, is_other = said.pop("python", (3, 12)), said.pop("is_other", False)
        quiet = {"/proc/sys/net/core/rmem_max": "8000000", f"{SITE}/kd_edge_msgs/a.so": ""}
        return make(
            ros_files() | quiet | (files or {}), path=path, python=python, is_other=is_other, **(environment | said)
        )

    return made


def test_all_in_order(sourced: Make) -> None:
    found = list(ros.findings(sourced()))
    assert {f.level for f in found} == {"ok"}
    assert [f.found for f in found] == [
        "jazzy",
        "middleware rmw_fastrtps_cpp",
        "domain 7",
        "discovery stays on this machine",
        "kd_edge_msgs is built",
    ]


def test_no_ros(make: Make) -> None:
    (finding,) = ros.findings(make())
    assert (finding.level, finding.found) == ("note", "it is not installed")


def test_installed_and_not_sourced(make: Make) -> None:
    (finding,) = ros.findings(make(ros_files()))
    assert finding.found == "jazzy is installed and not sourced"
    assert finding.fix.startswith("source /opt/ros/jazzy/setup.bash")


def test_sourced_and_lost(make: Make) -> None:
    (finding,) = ros.findings(make(ros_files(), ROS_DISTRO="jazzy"))
    assert (finding.level, finding.found) == ("problem", "ROS_DISTRO is jazzy, and Python does not find its rclpy")


def test_a_python_that_is_not_that_of_ros(make: Make, sourced: Make) -> None:
    (finding,) = ros.findings(make(ros_files(), python=(3, 11), ROS_DISTRO="jazzy"))
    assert finding.found == "ROS 2 jazzy is built for Python 3.12, and this is 3.11"
    assert "/usr/bin/python3 -m venv --system-site-packages" in finding.fix
    assert "rclpy is built for Python 3.12, and this is 3.13" in told(ros.findings(sourced(python=(3, 13))), "problem")


@pytest.mark.parametrize(
    ("variable", "value", "level", "found"),
    [
        ("ROS_DOMAIN_ID", "", "note", "ROS_DOMAIN_ID is not set: 0, which every robot has that is not told otherwise"),
        ("ROS_DOMAIN_ID", "233", "problem", "ROS_DOMAIN_ID is '233'"),
        ("ROS_DOMAIN_ID", "-1", "problem", "ROS_DOMAIN_ID is '-1'"),
        ("ROS_DOMAIN_ID", "seven\n", "problem", "ROS_DOMAIN_ID is 'seven\\n'"),
        ("ROS_DOMAIN_ID", "9" * 5000, "problem", f"ROS_DOMAIN_ID is '{'9' * 40}'"),
        ("ROS_DOMAIN_ID", "150", "note", "ROS_DOMAIN_ID is 150: Linux gives its ports (32768 to 60999) to others, too"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "localhost", "problem",
         "ROS_AUTOMATIC_DISCOVERY_RANGE is 'localhost' (did you mean 'LOCALHOST'?)"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF", "note",
         "discovery is off (ROS_AUTOMATIC_DISCOVERY_RANGE=OFF): nodes do not find each other"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "", "note",
         "discovery reaches the whole subnet: images go to whoever subscribes there"),
        ("ROS_LOCALHOST_ONLY", "1", "note",
         "ROS_LOCALHOST_ONLY=1 is deprecated, and wins over ROS_AUTOMATIC_DISCOVERY_RANGE"),
        ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp", "problem",
         "the middleware rmw_cyclonedds_cpp (RMW_IMPLEMENTATION) is not there"),
        ("RMW_IMPLEMENTATION", "rmw_fastrtp_cpp", "problem",
         "the middleware rmw_fastrtp_cpp (RMW_IMPLEMENTATION) is not there (did you mean 'rmw_fastrtps_cpp'?)"),
    ],
)  # fmt: skip
def test_variables(sourced: Make, variable: str, value: str, level: str, found: str) -> None:
    assert told(ros.findings(sourced(**{variable: value})), level) == [found]


def test_humble_does_not_know_the_range(sourced: Make) -> None:
    found = told(ros.findings(sourced(ROS_DISTRO="humble")), "note")
    assert found == ["Humble does not know ROS_AUTOMATIC_DISCOVERY_RANGE: topics reach the whole network"]
    assert told(ros.findings(sourced(ROS_DISTRO="humble", ROS_LOCALHOST_ONLY="1")), "note") == []


def test_the_wheels_without_their_middleware(make: Make) -> None:
    wheels = {f"{SITE}/rclpy/_rclpy_pybind11.cpython-312-x86_64-linux-gnu.so": ""} | distribution("ros-rclpy", "9.1.2")
    found = list(ros.findings(make(wheels)))
    (problem,) = [f for f in found if f.level == "problem"]
    assert found[0].found == "rclpy 9.1.2 from wheels"
    assert problem.found == "the middleware rmw_fastrtps_cpp (the default) is not there"
    assert problem.fix.endswith("pip install ros-kilted-rmw-fastrtps-cpp")
    whole = wheels | {"/venv/lib/librmw_fastrtps_cpp.so": ""}
    assert told(ros.findings(make(whole)), "problem") == []


def test_wheels_and_a_sourced_ros(sourced: Make) -> None:
    wheels = {f"{SITE}/rclpy/_rclpy_pybind11.cpython-312-x86_64-linux-gnu.so": ""} | distribution("ros-rclpy", "9.1.2")
    found = told(ros.findings(sourced(wheels)), "problem")
    assert found == ["rclpy 9.1.2 from wheels beside libraries of jazzy, which is sourced"]


def test_messages_that_are_not_built_or_for_another_python(sourced: Make, make: Make) -> None:
    machine = sourced()
    (machine.root / f"{SITE}/kd_edge_msgs/a.so".lstrip("/")).unlink()
    (note,) = told(ros.findings(machine), "note")
    assert note == "kd_edge_msgs is not built or not sourced: labels go out as JSON (std_msgs/String)"
    other = {"/ws/install/lib/python3.10/site-packages/kd_edge_msgs/a.so": ""}
    again = sourced(other, AMENT_PREFIX_PATH=f"/ws/install:{JAZZY}", path=(f"{JAZZY}/lib/python3.12/site-packages",))
    assert told(ros.findings(again), "problem") == ["kd_edge_msgs is built for Python 3.10, and this is 3.12"]


def test_numpy_and_buffers(sourced: Make) -> None:
    found = list(ros.findings(sourced(distribution("numpy", "2.3.1") | {"/proc/sys/net/core/rmem_max": "212992\n"})))
    assert told(found, "problem") == ["NumPy 2.3.1 beside ROS 2 jazzy, whose messages are built for NumPy 1"]
    assert told(found, "note") == ["receive buffers hold 212992 bytes: best effort loses large images (16 bits)"]
    assert found[-1].fix == "reliability:=reliable for the topic, or sudo sysctl -w net.core.rmem_max=8000000"


def test_shared_memory_of_another_user(sourced: Make) -> None:
    segments = {"/dev/shm/fastrtps_port7411": "", "/dev/shm/fastdds_0498f41ee7a7414b": "", "/dev/shm/other": ""}
    assert told(ros.findings(sourced(segments)), "note") == []
    found = told(ros.findings(sourced(segments, is_other=True)), "note")
    mine = os.geteuid()
    assert found == [f"user id {mine} has nodes here, too: their topics are seen, and no image comes"]


@pytest.mark.parametrize(
    "environment",
    [
        {"ROS_DISTRO": "x" * 9000},
        {"ROS_DISTRO": "a\nb"},
        {"ROS_DISTRO": "\udcff"},
        {"ROS_DOMAIN_ID": "0" * 9 + "9" * 5000},
        {"RMW_IMPLEMENTATION": "x" * 9000},
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "a\nb" * 900},
        {"LD_LIBRARY_PATH": ":rel:/" + "a" * 9000},
        {"LD_LIBRARY_PATH": "/a\0b", "AMENT_PREFIX_PATH": "/a\0b"},
    ],
    ids=lambda environment: "-".join(f"{name}-{len(value)}" for name, value in environment.items()),
)
@pytest.mark.parametrize("is_installed", [True, False])
def test_any_environment_is_lines_of_bounded_length(
    make: Make, sourced: Make, environment: dict[str, str], is_installed: bool
) -> None:
    found = list(ros.findings(sourced(**environment) if is_installed else make(**environment)))
    assert found
    for each in found:
        line = each.found + each.expected + each.fix
        assert line.isprintable()
        assert len(line) < 1000


def test_folders_that_cannot_be_looked_at_are_passed_over(sourced: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user's home in PYTHONPATH or LD_LIBRARY_PATH; to root everything is open."""
    stat = Path.stat

    def closed(path: Path, **how: bool) -> os.stat_result:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", closed)
    path = ("/closed/lib", "/" + "a" * 9000, f"{JAZZY}/lib/python3.12/site-packages")
    machine = sourced(path=path, LD_LIBRARY_PATH="/closed/lib")
    assert told(ros.findings(machine), "ok")[:2] == ["jazzy", "middleware rmw_fastrtps_cpp"]


def test_a_version_of_any_length(make: Make) -> None:
    machine = make(
        on(R36)
        | distribution("tensorrt-cu12", "1")
        | {f"{SITE}/tensorrt_cu12-1.dist-info/METADATA": f"Name: tensorrt-cu12\nVersion: 1{'0' * 5000}\n"}
    )
    assert any("is for Arm servers" in found for found in told(jetson.findings(machine), "problem"))
