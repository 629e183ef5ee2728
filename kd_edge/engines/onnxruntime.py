"""ONNX Runtime on the CPU or CUDA, through IO binding on numpy memory: no copy and no allocation per run."""

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

    The official wheels (seen in 1.31) collect usage events in the user's cache folder and send them to their maker,
    which a robot's owner does not expect. A value that is set already is left alone: ``ORT_DISABLE_TELEMETRY=0``
    allows them.

    Raises:
        MissingExtraError: It is not installed, or only half of it; ``extra`` would bring it. Or ``onnxruntime`` and
            ``onnxruntime-gpu`` are both installed: which one answers is chance.
    """
    if (both := clash("onnxruntime")) is not None:
        raise both
    decided = TELEMETRY_SWITCH in os.environ
    os.environ.setdefault(TELEMETRY_SWITCH, "1")  # read once, while the library is loaded
    try:
        return import_extra("onnxruntime", extra)
    finally:
        if not decided:
            del os.environ[TELEMETRY_SWITCH]


class OnnxRuntimeEngine(Engine):
    """A graph in an ONNX Runtime session; idle threads sleep, so a robot's other work keeps its cores."""

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
            enable_fallback=int(len(providers) > 1),  # of the CPU to the CPU: a second try that prints to our output
        )
        self.providers = tuple(self._session.get_providers())
        if not is_listed:
            self.fallback_reason = f"{provider} was asked for, this onnxruntime has no {wanted}"
        elif self.providers[0] != wanted:
            self.fallback_reason = f"{provider} was asked for, the session runs on {self.providers[0]}"
        inputs, outputs = (
            {node.name: tuple(node.shape[1:]) for node in nodes}
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        return Tensors(inputs, outputs)

    def _options(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it grows by doubling: 8 MB more for a ResNet18 in 8 bits, and no faster
        options.log_severity_level = 4  # what matters comes back as an exception or in get_providers()
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
            if is_on_device:  # a device's copy of an input is made when it is bound
                bind_inputs()
            session.run_with_iobinding(io)

        bind_inputs()
        for name in outputs:
            io.bind_ortvalue_output(name, values[name])
        return run

    def _unload(self) -> None:
        self._session = None


class CudaEngine(OnnxRuntimeEngine):
    """ONNX Runtime where it runs on an NVIDIA GPU."""

    key = "cuda"
    accepts: ClassVar[tuple[Provider, ...]] = ("cuda",)

    @classmethod
    def is_installed(cls) -> bool:
        """Whether there is an onnxruntime with a CUDA provider; it is not imported."""
        found = importlib.util.find_spec(cls.library)
        folders = (found and found.submodule_search_locations) or ()
        return any(Path(folder, "capi", CUDA_PROVIDER).is_file() for folder in folders)
