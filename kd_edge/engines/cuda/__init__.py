"""NVIDIA GPUs: properties from the driver, and memory and streams through cuda-python or pycuda."""

from __future__ import annotations

from typing import Literal, cast, get_args

from kd_edge.engines.cuda.cuda_python import CudaPythonDevice
from kd_edge.engines.cuda.device import Device
from kd_edge.engines.cuda.driver import Gpu, find_gpu
from kd_edge.engines.cuda.pycuda import PycudaDevice
from kd_edge.errors import ConfigError, MissingExtraError, did_you_mean

__all__ = ["BINDINGS", "CudaBinding", "Device", "Gpu", "cuda_binding", "find_gpu", "open_device"]

CudaBinding = Literal["auto", "cuda-python", "pycuda"]
BINDINGS: dict[str, type[Device]] = {"cuda-python": CudaPythonDevice, "pycuda": PycudaDevice}
"""Bindings in order of preference; cuda-python is first because only it can capture graphs."""


def cuda_binding(text: str) -> CudaBinding:
    """Check the name of a binding, or ``auto``.

    Raises:
        ConfigError: There is no such binding.
    """
    names = get_args(CudaBinding)
    if text not in names:
        raise ConfigError(
            f"CUDA binding '{text}'{did_you_mean(text, names)}", f"one of {', '.join(names)}", "correct it"
        )
    return cast("CudaBinding", text)


def open_device(binding: CudaBinding = "auto", index: int = 0) -> Device:
    """Open a GPU.

    Args:
        binding: Package that calls the driver; ``auto`` is whichever is installed, cuda-python if both are.
        index: Number of the GPU.

    Raises:
        MissingExtraError: The binding is not installed; with ``auto``, none is.
        EngineError: There is no such GPU.
        DeviceError: The driver returned an error.
    """
    find_gpu(index)  # its errors are clearer than those of the bindings
    if binding != "auto":
        return BINDINGS[binding](index)
    for kind in BINDINGS.values():
        if kind.is_installed():
            return kind(index)
    raise MissingExtraError(
        "neither cuda-python nor pycuda is installed",
        "one of them, which TensorRT needs for GPU memory",
        "pip install 'kd-edge[tensorrt]' (cuda-python) or 'kd-edge[pycuda]'",
    )
