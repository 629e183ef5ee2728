"""ncnn on the CPU: the fastest float32 convolutions on x86 and Arm. It runs the model attached to the artifact.

Models are converted at export (``kd_edge.export.ncnn``), never on the robot.
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Engine, Provider
from kd_edge.engines.tensors import Shapes, Tensors, tensors
from kd_edge.packages import import_extra
from kd_edge.types import Float32

PARAM, WEIGHTS = "ncnn.param", "ncnn.bin"
"""Names of the attachments with the layers (text) and the weights."""

WAITING_SWITCH = "OMP_WAIT_POLICY"

_REDUCED = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
_SIZES = ("2", "11", "1", "0")  # keys of an Input layer: channels, depth, height, width
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def load_ncnn() -> ModuleType:
    """Import ncnn so that its idle threads sleep; by default OpenMP's spin, on a busy robot longer than they compute.

    A value set by the user is respected.

    Raises:
        MissingExtraError: It is not installed, or incompletely.
    """
    decided = WAITING_SWITCH in os.environ
    os.environ.setdefault(WAITING_SWITCH, "PASSIVE")  # read once, when the library is loaded
    try:
        return import_extra("ncnn", "ncnn")
    finally:
        if not decided:
            del os.environ[WAITING_SWITCH]


class NcnnEngine(Engine):
    """A graph in an ncnn net, in float32; a batch is run source by source.

    Arrays are copied in and out, because a net may write to its inputs and crashes if that is not its own memory. For a
    step of 0.6 ms this takes 0.02 ms. Other Python threads run while the net computes.
    """

    key = library = "ncnn"
    _ncnn: Any = None
    _net: Any = None

    @classmethod
    def unsuited(cls, artifact: Artifact) -> str | None:
        """Why this engine cannot run an artifact, or None if it can; the library is not imported."""
        if not {PARAM, WEIGHTS} <= artifact.attachments.keys():
            return "it carries no ncnn model (kd-edge export --with ncnn)"
        if any(0 in shape for shape in tensors(artifact.manifest).inputs.values()):
            return "its windows have one segment, and ncnn crashes on an empty past"
        return None

    def _load(self, artifact: Artifact, threads: int, provider: Provider) -> Tensors:
        ncnn = self._ncnn = load_ncnn()
        self.name, self.providers = f"ncnn {ncnn.__version__}", ("cpu",)
        param = artifact.attachment(PARAM).decode()
        with artifact.open_attachment(WEIGHTS) as file:
            self._net = _net(ncnn, param, file, artifact.attachments[WEIGHTS].length, threads)
        inputs = _inputs(param)
        if inputs != self.tensors.inputs:  # the caller refuses this; running it might crash
            return Tensors(inputs, self.tensors.outputs)
        mats, names = _zeros(ncnn, inputs), self._net.output_names()
        return Tensors(inputs, {name: np.asarray(mat).shape for name, mat in _extracted(ncnn, self._net, mats, names)})

    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        ncnn, net, names = self._ncnn, self._net, list(outputs)
        mats = _zeros(ncnn, self.tensors.inputs)
        pairs = [(np.asarray(mats[name]), array) for name, array in inputs.items()]
        batch = len(next(iter(inputs.values())))

        def run() -> None:
            for source in range(batch):
                for memory, array in pairs:
                    memory[...] = array[source]
                for name, mat in _extracted(ncnn, net, mats, names):
                    outputs[name][source] = np.asarray(mat)

        return run

    def _unload(self) -> None:
        self._net = None


def blob_sizes(param: str, weights: bytes) -> dict[str, tuple[int, ...]]:
    """Run a net once on zeros and return number of axes, width, height and channels of every blob, by name.

    Raises:
        ValueError: ncnn refuses the net.
        RuntimeError: ncnn cannot run it.
        MissingExtraError: ncnn is not installed.
    """
    ncnn = load_ncnn()
    net = _net(ncnn, param, io.BytesIO(weights), len(weights), threads=1)
    names = [blob.name for blob in net.blobs()]
    mats = _extracted(ncnn, net, _zeros(ncnn, _inputs(param)), names, keep=True)
    return {name: (mat.dims, mat.w, mat.h, mat.c) for name, mat in mats}


def _net(ncnn: Any, param: str, weights: BinaryIO, length: int, threads: int) -> Any:
    """Load a net; ValueError with ncnn's message if it refuses."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for name in _REDUCED:
        if hasattr(net.opt, name):
            setattr(net.opt, name, False)
    reader = _Reader(weights, length)
    source = type("Reader", (ncnn.DataReader,), {"read": reader.read, "scan": lambda *_: 0})()
    with _ncnn_messages():
        if net.load_param_mem(param) != 0 or net.load_model(source) != 0 or reader.left != 0:
            raise ValueError(f"its layers do not match its {length:,} bytes of weights")
    return net


def _zeros(ncnn: Any, shapes: Shapes) -> dict[str, Any]:
    """Zeroed inputs for one source, in memory owned by ncnn."""
    arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
    return {name: ncnn.Mat(array).clone() for name, array in arrays.items()}


def _extracted(
    ncnn: Any, net: Any, mats: dict[str, Any], names: list[str], *, keep: bool = False
) -> Iterator[tuple[str, Any]]:
    """Run a net once and yield blobs by name; without ``keep`` only outputs exist, other blobs are freed."""
    with net.create_extractor() as extractor:
        extractor.set_light_mode(not keep)
        for name, mat in mats.items():
            _check(extractor.input(name, mat), name)
        for name in names:
            mat = ncnn.Mat()
            _check(extractor.extract(name, mat), name)
            yield name, mat


class _Reader:
    """Passes ncnn the bytes of its weights and no more; its own reader of memory does not check bounds.

    Args:
        file: File positioned at the weights.
        left: Number of bytes.
    """

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self.left = file, left

    def read(self, buffer: object, size: int) -> int:
        """Fill a buffer of ncnn; return the number of bytes."""
        memory = (ctypes.c_char * min(size, self.left)).from_address(_pointer(buffer, None))
        count: int = self._file.readinto(memory)  # type: ignore[attr-defined]
        self.left -= count
        return count


_STANDARD_ERROR = threading.RLock()
"""Lock on the process's standard error: one thread at a time may replace it."""


@contextmanager
def _ncnn_messages() -> Iterator[None]:
    """Give a ValueError the message that ncnn writes to standard error; its functions return only a number."""
    if sys.stderr is None:  # closed: its number may belong to another file
        yield
        return
    fault: ValueError | None = None
    readable, writable = os.pipe()
    with _STANDARD_ERROR, open(readable, "rb", buffering=0) as pipe:
        for end in (readable, writable):
            os.set_blocking(end, False)
        kept = os.dup(2)
        os.dup2(writable, 2)
        os.close(writable)
        try:
            yield
        except ValueError as error:
            fault = error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        output = pipe.read() or b""
    if fault is not None:
        lines = output.decode(errors="replace").splitlines()
        raise ValueError(lines[-1] if lines else str(fault)) from fault
    os.write(2, output)  # from another thread


def _inputs(param: str) -> Shapes:
    """Inputs of a net by name, from its Input layers: (c, h, w), (h, w) or (w,)."""
    shapes = {}
    for line in param.splitlines()[2:]:
        kind, *words = line.split()
        if kind == "Input":
            sizes = dict(word.split("=") for word in words[4:])
            shapes[words[3]] = tuple(int(sizes[key]) for key in _SIZES if key in sizes)
    return shapes


def _check(code: int, name: str) -> None:
    if code != 0:
        raise RuntimeError(f"ncnn returns {code} for '{name}'")
