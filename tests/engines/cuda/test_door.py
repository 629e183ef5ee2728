"""Which binding is taken, what the driver says, and what is told where there is none."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from kd_edge.engines import cuda
from kd_edge.engines.cuda import BINDINGS, Gpu, cuda_binding, driver, find_gpu, open_device
from kd_edge.errors import ConfigError, EngineError, MissingExtraError

ORIN = Gpu("Orin", (8, 7), (13, 2), "39.2.1")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the bindings that are opened, on a machine with a GPU."""
    names: list[str] = []
    monkeypatch.setattr(cuda, "find_gpu", lambda index: ORIN)
    for name in BINDINGS:
        made = type(name, (BINDINGS[name],), {"__init__": lambda self, index, n=name: names.append(n)})
        monkeypatch.setitem(BINDINGS, name, made)
    return names


@pytest.mark.parametrize(
    ("installed", "asked", "taken"),
    [
        ({"cuda.bindings", "pycuda"}, "auto", "cuda-python"),
        ({"cuda.bindings"}, "auto", "cuda-python"),
        ({"pycuda"}, "auto", "pycuda"),
        ({"cuda", "cuda.pathfinder", "pycuda"}, "auto", "pycuda"),  # other packages have a folder of that name, too
        ({"cuda.bindings", "pycuda"}, "pycuda", "pycuda"),
        ({"cuda.bindings", "pycuda"}, "cuda-python", "cuda-python"),
    ],
)
def test_whichever_is_installed_is_taken(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, installed: set[str], asked, taken: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    open_device(asked)
    assert opened == [taken]


def test_neither_is_one_line_that_names_both(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"neither cuda-python nor pycuda .*\[tensorrt\].*\[pycuda\]"):
        open_device()
    assert opened == []


def test_a_binding_whose_folder_is_not_there_either_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises where it looks for a module in a package that is not there."""
    monkeypatch.setattr(BINDINGS["cuda-python"], "library", "no_such_package.bindings")
    assert not BINDINGS["cuda-python"].is_installed()


def test_names_are_checked() -> None:
    assert [cuda_binding(name) for name in ("auto", "cuda-python", "pycuda")] == ["auto", "cuda-python", "pycuda"]
    with pytest.raises(ConfigError, match=r"CUDA binding 'pycud' \(did you mean 'pycuda'\?\)"):
        cuda_binding("pycud")


class Driver:
    """Answers like libcuda: functions by name, which write into what they are given."""

    def __init__(self, code: int = 0, failing: str = "", count: int = 1) -> None:
        self.code, self.failing, self.count = code, failing, count

    def __getattr__(self, name: str):
        def call(*arguments: object) -> int:
            values = {
                "cuDriverGetVersion": [13020], "cuDeviceGetCount": [self.count], "cuDeviceGet": [0],
                "cuDeviceComputeCapability": [8, 7],
            }  # fmt: skip
            for target, value in zip(arguments, values.get(name, ()), strict=False):
                target._obj.value = value
            if name == "cuDeviceGetName":
                arguments[0].value = b"Orin"
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_NO_DEVICE"
            return self.code if name == self.failing else 0

        return call


def test_what_the_driver_says_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(driver, "l4t", lambda: "39.2.1")
    assert find_gpu() == ORIN
    assert str(ORIN) == "Orin (SM87, CUDA 13.2, L4T 39.2.1)"
    assert str(ORIN._replace(l4t="")) == "Orin (SM87, CUDA 13.2)"
    with pytest.raises(EngineError, match="no GPU number 1, the driver counts 1"):
        find_gpu(1)


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount", "cuDeviceGetName", "cuDeviceComputeCapability"])
def test_a_driver_that_does_not_answer_is_named_with_its_error(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(100, call))
    with pytest.raises(EngineError, match=f"answers CUDA_ERROR_NO_DEVICE to {call}"):
        find_gpu()


def test_a_driver_that_lacks_a_call_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with pytest.raises(EngineError, match="the CUDA driver has no cuInit"):
        find_gpu()


def test_no_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(EngineError, match=r"no CUDA driver \(libcuda\.so\.1 cannot be loaded\)"):
        find_gpu()


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R39 (release), REVISION: 2.1, GCID: 1", "39.2.1"),
        ("something else", ""),
        ("", ""),
    ],
)
def test_the_release_of_jetson_linux(tmp_path: Path, text: str, release: str) -> None:
    path = tmp_path / "nv_tegra_release"
    path.write_text(text)
    assert driver.l4t(path) == release
    assert driver.l4t(tmp_path / "absent") == ""
