"""ONNX Runtime on the CPU or CUDA, with IO binding on NumPy memory: no copy and no allocation per run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Engine, Provider
from kd_edge.engines.tensors import Tensors
from kd_edge.packages import clash, import_extra
from kd_edge.types import Float32

__all__ = ["CudaEngine", "OnnxRuntimeEngine", "Provider", "load_onnxruntime"]

EXTRAS: dict[Provider, str] = {"cpu": "cpu", "cuda": "gpu"}
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"


def load_onnxruntime(extra: str = "cpu") -> ModuleType:
    """Import onnxruntime with its telemetry off.

    The official wheels (seen in 1.31) collect usage events in the user's cache folder and send them to Microsoft,
    which a robot's owner does not expect. A value set by the user is respected: ``ORT_DISABLE_TELEMETRY=0`` allows
    the telemetry.

    Raises:
        MissingExtraError: It is not installed, or incompletely; ``extra`` installs it. Also raised if ``onnxruntime``
            and ``onnxruntime-gpu`` are both installed, because it is undefined which one is imported.
    """
    if (both := clash("onnxruntime")) is not None:
        raise both
    decided = TELEMETRY_SWITCH in os.environ
    os.environ.setdefault(TELEMETRY_SWITCH, "1")  # read once, when the library is loaded
    try:
        return import_extra("onnxruntime", extra)
    finally:
        if not decided:
            del os.environ[TELEMETRY_SWITCH]


class OnnxRuntimeEngine(Engine):
    """A graph in an ONNX Runtime session. Idle threads sleep, which leaves the cores to the robot's other work."""

    key = library = "onnxruntime"
    accepts: ClassVar[tuple[Provider, ...]] = tuple(PROVIDERS)
    _session: Any = None

    def _load(self, artifact: Artifact, threads: int, provider: Provider) -> Tensors:
        self._ort = load_onnxruntime(EXTRAS[provider])
        self.name = f"onnxruntime {self._ort.__version__}"
        wanted, cpu = PROVIDERS[provider], PROVIDERS["cpu"]
        is_listed = wanted in self._ort.get_available_providers()
        providers = list(dict.fromkeys([wanted, cpu])) if is_listed else [cpu]
        self._session = self._ort.InferenceSession(
            str(artifact.path),
            self._options(threads),
            providers=providers,
            enable_fallback=int(len(providers) > 1),  # from the CPU to the CPU it only prints
        )
        self.providers = tuple(self._session.get_providers())
        if not is_listed:
            self.fallback_reason = f"{provider} was requested, but this onnxruntime has no {wanted}"
        elif self.providers[0] != wanted:
            self.fallback_reason = f"{provider} was requested, but the session runs on {self.providers[0]}"
        inputs, outputs = (
            {node.name: tuple(node.shape[1:]) for node in nodes}
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        return Tensors(inputs, outputs)

    def _options(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # grows by doubling: 8 MB more for an int8 ResNet18, no speed-up
        options.log_severity_level = 4  # failures are exceptions or visible in get_providers()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        return options

    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        session, io = self._session, self._session.io_binding()
        values = {
            name: self._ort.OrtValue.ortvalue_from_numpy(array) for name, array in (inputs | outputs).items()
        }  # they share the arrays' memory
        is_on_device = self.providers[0] != PROVIDERS["cpu"]

        def bind_inputs() -> None:
            for name in inputs:
                io.bind_ortvalue_input(name, values[name])

        def run() -> None:
            if is_on_device:  # inputs are copied to the device when they are bound
                bind_inputs()
            session.run_with_iobinding(io)

        bind_inputs()
        for name in outputs:
            io.bind_ortvalue_output(name, values[name])
        return run

    def _unload(self) -> None:
        self._session = None


class CudaEngine(OnnxRuntimeEngine):
    """ONNX Runtime on an NVIDIA GPU."""

    key = "cuda"
    accepts: ClassVar[tuple[Provider, ...]] = ("cuda",)

    @classmethod
    def is_installed(cls) -> bool:
        """Whether an onnxruntime with a CUDA provider is installed, without importing it."""
        found = importlib.util.find_spec(cls.library)
        folders = (found and found.submodule_search_locations) or ()
        return any(Path(folder, "capi", CUDA_PROVIDER).is_file() for folder in folders)
