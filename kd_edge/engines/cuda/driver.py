"""Query GPUs from the CUDA driver, without any package and without creating a context."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kd_edge.errors import DeviceError, EngineError

LIBRARY = "libcuda.so.1"
_TEGRA = Path("/etc/nv_tegra_release")
_NAME_BYTES = 256
_ERROR_CODES = 1000


class Gpu(NamedTuple):
    """One GPU.

    Attributes:
        name: Name reported by the driver.
        capability: Compute capability, for example (8, 7) for a Jetson Orin.
        driver: Newest CUDA version supported by the driver, for example (13, 2).
        l4t: Release of Jetson Linux, for example "36.4.3"; empty on other machines.
    """

    name: str
    capability: tuple[int, int]
    driver: tuple[int, int]
    l4t: str

    def __str__(self) -> str:
        """Return name, capability and driver for reports."""
        sm, cuda = "".join(map(str, self.capability)), ".".join(map(str, self.driver))
        return f"{self.name} (SM{sm}, CUDA {cuda}{f', L4T {self.l4t}' if self.l4t else ''})"


def find_gpu(index: int = 0) -> Gpu:
    """Query a GPU from the driver.

    Args:
        index: Number of the GPU.

    Raises:
        EngineError: There is no driver, it returned an error, or there is no such GPU.
    """
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise _no_gpu(f"no CUDA driver ({LIBRARY} cannot be loaded)") from error
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    _ask(cuda, "cuInit", 0)
    _ask(cuda, "cuDriverGetVersion", ctypes.byref(version))
    _ask(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= index < count.value:
        raise _no_gpu(f"no GPU number {index}, the driver counts {count.value}")
    _ask(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _ask(cuda, "cuDeviceGetName", name, _NAME_BYTES, device)
    _ask(cuda, "cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), device)
    served = version.value // 1000, version.value % 1000 // 10
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), served, l4t())


def l4t(release: Path = _TEGRA) -> str:
    """Return the release of Jetson Linux; empty on other machines.

    Args:
        release: The file to read: ``# R36 (release), REVISION: 4.3, ...``.
    """
    try:
        line = release.read_text(errors="replace")[:_NAME_BYTES]
    except OSError:
        return ""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", line)
    return "" if found is None else f"{found[1]}.{found[2]}"


def register(address: int, size: int) -> Callable[[], None]:
    """Register whole pages of host memory for direct access by the current context's GPU.

    Args:
        address: Address of the first page.
        size: Size in bytes, a multiple of the page size.

    Returns:
        A function that unregisters them, to be called with the same context.

    Raises:
        DeviceError: The driver returned an error.
    """
    cuda = ctypes.CDLL(LIBRARY)

    def call(name: str, *arguments: object) -> None:
        if (code := getattr(cuda, name)(*arguments)) != 0:
            raise refused(name.removesuffix("_v2"), error_name(cuda, code))

    call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(size), 0)
    return lambda: call("cuMemHostUnregister", ctypes.c_void_p(address))


def pop_current() -> None:
    """Pop this thread's current context from its stack; does nothing if there is none."""
    ctypes.CDLL(LIBRARY).cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def refused(call: str, error: str) -> DeviceError:
    """The error for a call on which the driver returned an error."""
    return DeviceError(
        f"the GPU answers {error} to {call}",
        "an attached GPU with free memory, and a driver as new as the libraries",
        "nvidia-smi, kd-edge doctor, or --engine onnxruntime",
    )


def _ask(cuda: ctypes.CDLL, call: str, *arguments: object) -> None:
    try:
        code = getattr(cuda, call)(*arguments)
    except AttributeError as error:
        raise _no_gpu(f"the CUDA driver has no {call}") from error
    if code != 0:
        raise _no_gpu(f"the CUDA driver answers {error_name(cuda, code)} to {call}")


def error_name(cuda: ctypes.CDLL, code: int) -> str:
    """Return the driver's name of an error code."""
    text = ctypes.c_char_p()
    if cuda.cuGetErrorName(code, ctypes.byref(text)) == 0 and text.value:
        return text.value.decode(errors="replace")
    return f"error {code}"


def error_named(text: str) -> str:
    """Return the driver's name of the error with this description; empty if there is none."""
    cuda, description = ctypes.CDLL(LIBRARY), ctypes.c_char_p()
    for code in range(1, _ERROR_CODES):
        if cuda.cuGetErrorString(code, ctypes.byref(description)) == 0 and (description.value or b"").decode() == text:
            return error_name(cuda, code)
    return ""


def _no_gpu(found: str) -> EngineError:
    return EngineError(found, "an NVIDIA GPU and its driver", "nvidia-smi, kd-edge doctor, or --engine onnxruntime")
