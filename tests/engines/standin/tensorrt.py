"""A stand-in for the package ``tensorrt``, on the stand-in driver ``fakecuda.c``: no GPU, no TensorRT.

A "plan" is a header and the ONNX file; running it runs ONNX Runtime on the very addresses that were given, in the
stream's order. It has what kd-edge uses of TensorRT 10, does what TensorRT does where something is wrong (logs and
returns None or False), and takes GPU memory of its own, which must be given back.

``STANDIN_TENSORRT`` may hold words: ``null`` (no plan can be loaded), ``wrong-graph`` or ``idle-graph`` (a captured run
computes something else, or nothing), ``no-builder``.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import json
import os
import weakref
from typing import Any

import numpy as np
import onnx

from kd_edge.engines.onnxruntime import load_onnxruntime

__version__ = "10.16.1.standin"
MAGIC = b"standin-plan\n"

_cuda = ctypes.CDLL("libcuda.so.1")
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _told(word: str) -> bool:
    return word in os.environ.get("STANDIN_TENSORRT", "").split()


def _check(code: int, call: str) -> None:
    if code != 0:
        raise RuntimeError(f"error {code} in {call}")


class _Memory:
    """Memory of the GPU that the library takes for itself, in the primary context."""

    def __init__(self, size: int) -> None:
        self.address = ctypes.c_uint64()
        self._in_context(
            lambda: _check(_cuda.cuMemAlloc_v2(ctypes.byref(self.address), ctypes.c_size_t(size)), "alloc")
        )

    def __del__(self) -> None:
        if self.address.value:
            with contextlib.suppress(RuntimeError):  # a lost device takes nothing back
                self._in_context(lambda: _cuda.cuMemFree_v2(self.address))

    @staticmethod
    def _in_context(call: Any) -> None:
        context = ctypes.c_void_p()
        _check(_cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), "cuDevicePrimaryCtxRetain")
        try:
            _check(_cuda.cuCtxPushCurrent_v2(context), "cuCtxPushCurrent")
            try:
                call()
            finally:
                _cuda.cuCtxPopCurrent_v2(None)
        finally:
            _cuda.cuDevicePrimaryCtxRelease_v2(0)


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    VERSION_COMPATIBLE, EXCLUDE_LEAN_RUNTIME = range(2)


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE, AMPERE_PLUS = range(2)


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8 = range(3)


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, least: tuple, best: tuple, most: tuple) -> None:
        self.shapes[name] = [list(least), list(best), list(most)]


class _TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content + b"timed\n")


class _Config:
    builder_optimization_level = 3
    profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
    hardware_compatibility_level = HardwareCompatibilityLevel.NONE

    def __init__(self) -> None:
        self.profiles: list[_Profile] = []
        self.flags: set[BuilderFlag] = set()
        self.pools: dict[MemoryPoolType, int] = {}
        self.cache: _TimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.pools[pool] = size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> _TimingCache | None:
        return None if content and not content.endswith(b"timed\n") else _TimingCache(content)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True


class LayerType(enum.IntEnum):
    DEQUANTIZE = 0


class _Network:
    num_layers = 0

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: onnx.ModelProto | None = None


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return "node"

    def node_operator(self) -> str:
        return "Operator"


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network, self._errors = network, []

    def parse(self, content: bytes) -> bool:
        try:
            self._network.model = onnx.load_from_string(content)
        except Exception as error:
            self._errors.append(ParserError(str(error)))
            return False
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> memoryview | None:
        if not network.flags & (1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED):
            self._logger.log(ILogger.Severity.ERROR, "the network is not strongly typed")
            return None
        if _told("no-builder"):
            self._logger.log(ILogger.Severity.ERROR, "no kernel of a layer fits this GPU")
            return None
        assert network.model is not None
        header = {"version": __version__, "gpu": _gpu(), "profile": config.profiles[0].shapes}
        return memoryview(MAGIC + json.dumps(header).encode() + b"\n" + network.model.SerializeToString())


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if self.engine_host_code_allowed:
            raise AssertionError("host code of plans must stay off")
        fault, parts = "", bytes(plan).split(b"\n", 2)
        if len(parts) < 3 or parts[0] + b"\n" != MAGIC:
            fault = "the plan is malformed"
        elif (header := json.loads(parts[1]))["version"] != __version__:
            fault = f"the plan is of version {header['version']}, this is {__version__}"
        elif header["gpu"] != _gpu():
            fault = f"the plan is for {header['gpu']}, this is {_gpu()}"
        elif _told("null"):
            fault = "CUDA initialization failure with error: 35"
        if fault:
            self._logger.log(ILogger.Severity.ERROR, fault)
            return None
        return ICudaEngine(header, parts[2], self._logger)


class ICudaEngine:
    def __init__(self, header: dict[str, Any], content: bytes, logger: ILogger) -> None:
        graph = onnx.load_from_string(content).graph
        self._logger, self.profile = logger, header["profile"]
        self.tensors = {
            value.name: (mode, tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim))
            for mode, values in ((TensorIOMode.INPUT, graph.input), (TensorIOMode.OUTPUT, graph.output))
            for value in values
        }
        self._weights = _Memory(len(content))
        ort = load_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.tensors[name][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def create_engine_inspector(self) -> _Inspector:
        return _Inspector()

    def create_execution_context(self) -> IExecutionContext | None:
        try:
            return IExecutionContext(self)
        except RuntimeError as error:
            self._logger.log(ILogger.Severity.ERROR, str(error))
            return None


class _Inspector:
    def get_engine_information(self, layout: LayerInformationFormat) -> str:
        layers = [{"Name": "conv", "Outputs": [{"Name": "x", "Format/Datatype": "Half"}]}] * 3
        return json.dumps({"Layers": [*layers, {"Name": "fc", "Outputs": [{"Name": "y", "Format/Datatype": "Float"}]}]})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._shapes, self._addresses, self._runs = engine, {}, {}, 0
        self._memory = _Memory(4096)
        mine = weakref.ref(self)  # a cycle would keep the memory until the collector comes

        def call(_: object) -> None:
            context = mine()
            assert context is not None, "a context was given back before its run"
            context._run()

        self._function = _HostFunction(call)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.profile[name]
        if len(shape) != len(least) or not all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % 256:
            raise AssertionError(f"{name} is not aligned")
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self._addresses.keys() != self._engine.tensors.keys():
            return False
        code = int(_cuda.cuLaunchHostFunc(ctypes.c_void_p(stream), self._function, None))
        if code != 0:
            self._engine._logger.log(ILogger.Severity.ERROR, f"enqueueV3: error {code} in cuLaunchHostFunc")
        return code == 0

    def _run(self) -> None:
        self._runs += 1
        if _told("idle-graph") and self._runs > 2:
            return
        batch = next(iter(self._shapes.values()))[0]
        feeds = {name: self._array(name, shape) for name, shape in self._shapes.items()}
        outputs = [name for name, (mode, _) in self._engine.tensors.items() if mode == TensorIOMode.OUTPUT]
        for name, value in zip(outputs, self._engine.session.run(outputs, feeds), strict=True):
            if _told("wrong-graph") and self._runs > 2:  # the first two are plain ones
                value = value + 1
            self._array(name, (batch, *self._engine.tensors[name][1][1:]))[:] = value

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self._addresses[name])).reshape(shape)


def _gpu() -> str:
    name = ctypes.create_string_buffer(256)
    _cuda.cuInit(0)
    _cuda.cuDeviceGetName(name, 256, 0)
    return name.value.decode()
