"""The real cuda-python and the real pycuda on a stand-in driver, under TensorRT's engine with a stand-in tensorrt."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kd_edge.engines.cuda import BINDINGS

HERE = Path(__file__).parents[1]
PYCUDA = "KD_EDGE_PYCUDA"
"""Environment variable: the folder that ``tools/build_pycuda.sh`` has installed pycuda into."""
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


@pytest.fixture
def environment(driver: Path) -> Callable[[str], dict[str, str]]:
    """``environment(binding)`` of a process with the stand-ins and a binding."""

    def environment(binding: str) -> dict[str, str]:
        paths = [str(HERE / "standin"), str(HERE.parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        if binding == "cuda-python" and not BINDINGS[binding].is_installed():
            absent("cuda-python is not installed")
        if binding == "pycuda":
            if not (folder := os.environ.get(PYCUDA)):
                absent(f"pycuda is built by tools/build_pycuda.sh; {PYCUDA} names its folder")
            paths.insert(0, str(folder))
        return {
            **os.environ,
            "KD_EDGE_BINDING": binding,
            "LD_LIBRARY_PATH": os.pathsep.join([str(driver), os.environ.get("LD_LIBRARY_PATH", "")]),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONFAULTHANDLER": "1",
            "FAKECUDA_REPORT": str(driver / "report.txt"),
        }

    return environment


@pytest.mark.slow  # all of cuda_checks.py, in a process of its own
@pytest.mark.parametrize("binding", ["cuda-python", "pycuda"])
def test_on_the_stand_in_driver(driver: Path, environment, causal_reference: Path, binding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "standin" / "cuda_checks.py")],
        env={**environment(binding), "KD_EDGE_CAUSAL": str(causal_reference)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    left = dict(line.split() for line in (driver / "report.txt").read_text().splitlines())
    assert int(left.pop("calls")) > 1000
    assert left == dict.fromkeys(("device", "host", "contexts", "retained", "streams", "events", "graphs"), "0")


@pytest.mark.slow
@pytest.mark.parametrize("binding", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("last", ["pass", "del engine, binding", "engine.close()"])
def test_a_program_whose_device_is_lost_ends_as_it_would_have(
    environment, tmp_path: Path, binding: str, last: str
) -> None:
    """Destructors of pycuda end the process where the driver refuses."""
    program = (
        "import ctypes\n"
        "from kd_edge import artifact\n"
        "from kd_edge.engines import open_engine\n"
        f"engine = open_engine(artifact.load(artifact.BUNDLED), engine='tensorrt', cuda_binding={binding!r})\n"
        "binding = engine.bind(1)\n"
        "binding.run()\n"
        "ctypes.CDLL('libcuda.so.1').fakecuda_fail(b'*:1+=999')\n"
        f"{last}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment(binding), "KD_EDGE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


PREPARED = """
import ctypes as c
d = c.CDLL("libcuda.so.1")
context, stream, memory, host, graph = (c.c_void_p() for _ in range(5))
assert not d.cuDevicePrimaryCtxRetain(c.byref(context), 0) and not d.cuCtxPushCurrent_v2(context)
assert not d.cuStreamCreate(c.byref(stream), 1) and not d.cuMemAlloc_v2(c.byref(memory), c.c_size_t(64))
assert not d.cuMemHostAlloc(c.byref(host), c.c_size_t(4096), 0)
c.memset(host, 7, 4096)
def up(count, source=host): return d.cuMemcpyHtoDAsync_v2(memory, source, c.c_size_t(count), stream)
def wait(): return d.cuStreamSynchronize(stream)
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("up(65)", "beyond what is allocated on the device"),
        ("up(64, c.create_string_buffer(64))", "beyond what is registered of the host"),
        ("up(64); d.cuMemFree_v2(memory); wait()", "beyond what is allocated on the device"),
        ("d.cuStreamDestroy_v2(stream); wait()", "no such stream"),
        ("d.cuMemFree_v2(memory); d.cuMemFree_v2(memory)", "no such allocation"),
    ],
)
def test_the_stand_in_driver_ends_what_a_real_one_might_let_pass(driver: Path, program: str, said: str) -> None:
    done = on_the_driver(driver, program)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "")
    assert said in done.stderr


def test_the_stand_in_driver_does_nothing_before_it_is_waited_for_nor_allocates_while_it_captures(driver: Path) -> None:
    program = (
        "assert up(64) == 0 and c.string_at(memory.value, 1) == b'\\xcd'\n"
        "assert wait() == 0 and c.string_at(memory.value, 64) == bytes([7]) * 64\n"
        "assert d.cuStreamBeginCapture_v2(stream, 0) == 1\n"  # a mode that other threads would notice
        "assert d.cuStreamBeginCapture_v2(stream, 1) == 0\n"
        "assert d.cuMemAlloc_v2(c.byref(memory), c.c_size_t(64)) == 900\n"
        "assert d.cuStreamEndCapture(stream, c.byref(graph)) == 901\n"
        "d.cuCtxPopCurrent_v2(None)\n"
        "assert up(1) == wait() == 201\n"  # no context
    )
    done = on_the_driver(driver, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def on_the_driver(driver: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", PREPARED + program],
        env={"LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        timeout=60,
    )
