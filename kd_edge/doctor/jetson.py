"""Checks for common problems on Jetsons: TensorRT, ONNX Runtime, and containers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kd_edge.doctor.finding import Finding
from kd_edge.doctor.machine import Machine
from kd_edge.engines.cuda.driver import l4t
from kd_edge.errors import KdEdgeError

RELEASE = "/etc/nv_tegra_release"
COMPATIBLE = "/proc/device-tree/compatible"
CHIPS = {"nvidia,tegra194": "Xavier", "nvidia,tegra234": "Orin", "nvidia,tegra264": "Thor"}
PIP_TENSORRT = ("tensorrt-cu12-libs", "tensorrt-cu13-libs", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-libs")
"""Package names of PyPI's builds only: JetPack's own is called tensorrt."""
FIRST_FOR_ORIN = (10, 16)
"""The first TensorRT for Arm servers (SBSA) that has kernels for Orin (SM 87)."""
UNIFIED = 39
"""Jetson Linux R39 is JetPack 7.2: from here on Orin runs what Arm servers run."""
DLA = "libnvdla_compiler.so"


def findings(machine: Machine) -> Iterator[Finding]:
    """Findings on a Jetson; none on other machines."""
    chip, release = _chip(machine), l4t(machine.file(RELEASE))
    if not chip and not release:
        return
    major = _major(release)
    where = " in a container" if machine.is_container else ""
    named = f"{chip or 'Jetson'}, Jetson Linux {f'R{release}' if release else 'of an unknown release'}{where}"
    if not release:
        yield Finding(
            "note", "jetson", f"{named} ({RELEASE} is not there)", "the NVIDIA runtime, which brings the driver",
            "docker run --runtime nvidia, or default-runtime in /etc/docker/daemon.json",
        )  # fmt: skip
    else:
        yield Finding("ok", "jetson", named)
    yield from _tensorrt(machine, chip, major)
    yield from _onnxruntime(machine, major)


def explained(error: KdEdgeError, machine: Machine) -> Finding | None:
    """Explain TensorRT's failed import on a Jetson; None for other errors and machines."""
    if DLA not in error.found:
        return None
    major = _major(l4t(machine.file(RELEASE)))
    if major >= UNIFIED:
        return Finding(
            "problem",
            "jetson",
            f"this TensorRT needs {DLA}, which Jetson Linux R{major} no longer has and no package of it brings",
            "a TensorRT for Arm servers (SBSA) from 10.16 on: JetPack 7.2's own, or an image whose tag has no -igpu",
            "build launch/docker/jetpack7.Dockerfile, or run outside the container in a venv --system-site-packages",
        )
    return Finding(
        "problem",
        "jetson",
        f"TensorRT cannot be loaded: {DLA} is missing",
        "the host's, which the NVIDIA runtime puts into containers",
        "sudo apt install nvidia-l4t-dla-compiler on the host, and docker run --runtime nvidia",
    )


def _chip(machine: Machine) -> str:
    named = machine.text(COMPATIBLE)
    return next((chip for mark, chip in CHIPS.items() if mark in named), "")


def _major(release: str) -> int:
    return int(release.partition(".")[0]) if release else 0


def _tensorrt(machine: Machine, chip: str, major: int) -> Iterator[Finding]:
    """Report PyPI's TensorRT for aarch64, which is built for servers."""
    for name in PIP_TENSORRT:
        version = machine.version(name)
        number = tuple(map(int, re.findall(r"\d{1,9}", version)[:2]))
        runs_here = major >= UNIFIED and number >= FIRST_FOR_ORIN
        if version and chip in ("Xavier", "Orin") and not runs_here:
            yield Finding(
                "problem",
                "jetson",
                f"{name} {version} from PyPI is for Arm servers: it has no kernels for {chip}"
                + (" (SM 87)" if chip == "Orin" else ""),
                "JetPack's own TensorRT" + (", or 10.16 and later" if major >= UNIFIED else ""),
                f"pip uninstall -y {name}, and make the environment with python3 -m venv --system-site-packages",
            )
            return


def _onnxruntime(machine: Machine, major: int) -> Iterator[Finding]:
    if machine.architecture != "aarch64" or machine.version("onnxruntime-gpu"):
        return
    which = "JetPack 7" if major >= 38 else f"Jetson Linux R{major}" if major else "Jetsons"
    yield Finding(
        "note",
        "jetson",
        f"PyPI has no onnxruntime-gpu for aarch64, so ONNX Runtime runs on the CPU here ({which})",
        "",
        "use TensorRT: pip install 'kd-edge[jetson]' beside JetPack's, then --engine tensorrt; else a community build",
    )
