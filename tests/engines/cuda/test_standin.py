"""The real cuda-python and the real pycuda on a stand-in driver, under TensorRT's engine with a stand-in tensorrt."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PYCUDA = "KD_EDGE_PYCUDA"
"""Environment variable: the folder that ``.ci/cuda`` has installed pycuda into."""
REQUIRED = "KD_EDGE_REQUIRE_CUDA"
"""Environment variable: nothing here may be skipped."""


def absent(reason: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in driver."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        absent("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1", "-o"]
    subprocess.run([*command, str(folder / "libcuda.so.1"), str(HERE / "fakecuda.c")], check=True, timeout=60)
    return folder


@pytest.mark.parametrize("binding", ["cuda-python", pytest.param("pycuda", marks=pytest.mark.slow)])
def test_on_the_stand_in_driver(driver: Path, binding: str) -> None:
    paths = [str(HERE / "standin"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    if binding == "cuda-python" and importlib.util.find_spec("cuda") is None:
        absent("cuda-python is not installed")
    if binding == "pycuda":
        if not (folder := os.environ.get(PYCUDA)):
            absent(f"pycuda is built by .ci/cuda; {PYCUDA} names its folder")
        paths.insert(0, str(folder))
    environment = {
        **os.environ,
        "KD_EDGE_BINDING": binding,
        "LD_LIBRARY_PATH": os.pathsep.join([str(driver), os.environ.get("LD_LIBRARY_PATH", "")]),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONFAULTHANDLER": "1",
    }
    report = driver / f"{binding}.txt"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "standin" / "cuda_checks.py")],
        env={**environment, "FAKECUDA_REPORT": str(report)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    left = dict(line.split() for line in report.read_text().splitlines())
    assert {name: left[name] for name in ("device", "contexts", "streams", "graphs")} == dict.fromkeys(
        ("device", "contexts", "streams", "graphs"), "0"
    )
