#!/usr/bin/env python3
"""The ROS 2 packages of launch/ros2, built by colcon without ROS on the machine: everything comes from PyPI's wheels.

    python tools/build_ros_packages.py FOLDER [--environment VENV] [--packages kd_edge_msgs]

FOLDER/install becomes one prefix with all packages, as ``colcon build --merge-install`` makes it; VENV (by default
FOLDER/environment, made where there is none) gets rclpy, ament, rosidl and colcon of ROS 2 Kilted. Prints the
environment variables that add the prefix to VENV's Python. Needs gcc, g++ and 0.4 GB; x86-64, Python 3.10 to 3.13.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "launch/ros2"
WHEELS = (
    "ros-kilted-rclpy",
    "ros-kilted-rmw-fastrtps-cpp",
    "ros-kilted-std-msgs",
    "ros-kilted-rosidl-default-generators",
    "ros-kilted-ament-cmake",
    "ros-ament-cmake-include-directories",  # from here on what the wheels above need and do not ask for
    "ros-ament-cmake-ros",
    "ros-ament-cmake-ros-core",
    "ros-ament-package",
    "ros-rosidl-core-generators",
    "numpy",
    "colcon-common-extensions",
    "catkin-pkg",
    "empy==3.3.4",  # rosidl's templates are of version 3
    "cmake>=3.20,<4",
    "ninja",
)
SECONDS = 900.0
"""How long the download or the build may take."""
BUILT_WITH = re.compile(r"/opt/python/cp3\d+-cp3\d+")
"""Where the wheels' builders had their Python; nobody else has it there."""


def main() -> int:
    """Build; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--environment", type=Path)
    known = sorted(path.parent.name for path in SOURCES.glob("*/package.xml"))
    parser.add_argument("--packages", nargs="+", default=["kd_edge_msgs", "kd_edge"], choices=known)
    options = parser.parse_args()
    try:
        sys.stdout.write(built(options.folder.resolve(), options.environment, options.packages))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        words = " ".join(map(str, error.cmd))
        how = "takes too long" if isinstance(error, subprocess.TimeoutExpired) else f"exit code {error.returncode}"
        print(f"{words[:200]}: {how}", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def built(folder: Path, environment: Path | None, packages: list[str]) -> str:
    """Build, and what a shell that wants the packages exports."""
    environment = (environment or folder / "environment").resolve()
    python = environment / "bin/python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--timeout",
        "15",
        *WHEELS,
    ]
    subprocess.run(install, check=True, timeout=SECONDS)
    mend_paths(environment, python)
    build(folder, environment, python, packages)
    return variables(folder / "install", environment, python)


def ask(python: Path, expression: str) -> str:
    """What an expression is in another Python."""
    command: list[str | Path] = [python, "-c", f"import sys, sysconfig; print({expression})"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def mend_paths(environment: Path, python: Path) -> None:
    """Make the wheels' CMake files name this Python's headers and this NumPy's instead of their builders'."""
    headers, numpy = ask(python, "sysconfig.get_path('include')"), ask(python, "__import__('numpy').get_include()")
    for path in sorted(environment.glob("share/*/cmake/*.cmake")):
        text = path.read_text()
        mended = re.sub(BUILT_WITH.pattern + r"/include/python3\.\d+", headers, text)
        mended = re.sub(BUILT_WITH.pattern + r"/lib/python3\.\d+/site-packages/numpy/_core/include", numpy, mended)
        if mended != text:
            path.write_text(mended)


def build(folder: Path, environment: Path, python: Path, packages: list[str]) -> None:
    """Run colcon; build, install and log are below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    around = {
        **os.environ,
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": str(environment),
        "CMAKE_PREFIX_PATH": str(environment),
        "LD_LIBRARY_PATH": str(environment / "lib"),
        "MAKEFLAGS": "-j2",
    }
    colcon: list[str | Path] = [python, environment / "bin/colcon", "--log-base", "log", "build", "--merge-install"]
    where: list[str | Path] = ["--base-paths", SOURCES, "--packages-select", *packages]
    how = ["--cmake-args", f"-DPython3_EXECUTABLE={python}", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run([*colcon, *where, *how], cwd=folder, env=around, check=True, timeout=SECONDS)


def variables(prefix: Path, environment: Path, python: Path) -> str:
    """What a shell that wants the packages exports: setup.bash of a real ROS does the same."""
    packages = prefix / "lib" / ask(python, "'python%d.%d' % sys.version_info[:2]") / "site-packages"
    lines = (
        f"PYTHONPATH={packages}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"LD_LIBRARY_PATH={prefix / 'lib'}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}",
        f"AMENT_PREFIX_PATH={prefix}:{environment}",
    )
    return "".join(f"export {line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
