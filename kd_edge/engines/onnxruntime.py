"""ONNX Runtime on the CPU or CUDA, through IO binding on numpy memory: no copy and no allocation per run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from kd_edge.artifact import Artifact, Manifest
from kd_edge.engines.base import step_shapes
from kd_edge.errors import ArtifactError, MissingExtraError, import_extra
from kd_edge.types import Float32

Provider = Literal["cpu", "cuda"]
EXTRAS: dict[Provider, str] = {"cpu": "cpu", "cuda": "gpu"}
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"


def load_onnxruntime(extra: str = "cpu") -> ModuleType:
    """Import onnxruntime with its telemetry off.

    The official wheels (seen in 1.31) collect usage events in the user's cache folder and send them to their maker,
    which a robot's owner does not expect. A value that is set already is left alone: ``ORT_DISABLE_TELEMETRY=0``
    allows them.

    Raises:
        MissingExtraError: It is not installed; ``extra`` would bring it.
    """
    decided = TELEMETRY_SWITCH in os.environ
    os.environ.setdefault(TELEMETRY_SWITCH, "1")  # read once, while the library is loaded
    try:
        return import_extra("onnxruntime", extra)
    finally:
        if not decided:
            del os.environ[TELEMETRY_SWITCH]


class OnnxRuntimeEngine:
    """A streaming step in an ONNX Runtime session; see ``StepEngine``."""

    def __init__(self, ort: Any, session: Any, manifest: Manifest, fallback_reason: str | None) -> None:
        self.name = f"onnxruntime {ort.__version__}"
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self.fallback_reason = fallback_reason
        self._ort, self._session, self._manifest = ort, session, manifest

    def bind(self, batch: int) -> OnnxRuntimeBinding:
        """Allocate inputs and outputs for ``batch`` sources."""
        inputs, outputs = step_shapes(self._manifest, batch)
        return OnnxRuntimeBinding(self._ort, self._session, inputs, outputs)


class OnnxRuntimeBinding:
    """Numpy arrays bound to a session; see ``Binding``."""

    def __init__(
        self, ort: Any, session: Any, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
    ) -> None:
        arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in (inputs | outputs).items()}
        self.frame: Float32 = arrays["frame"]
        self.past: Float32 = arrays["past"]
        self.feature: Float32 = arrays["feature"]
        self.logits: Float32 = arrays["logits"]
        self.states_in: tuple[Float32, ...] = tuple(arrays[name] for name in list(inputs)[2:])
        self.states_out: tuple[Float32, ...] = tuple(arrays[name] for name in list(outputs)[2:])
        self._session = session
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}  # shared
        self._inputs = tuple(inputs)
        self._io = session.io_binding()
        self._on_device = session.get_providers()[0] != PROVIDERS["cpu"]
        self._bind_inputs()
        for name in outputs:
            self._io.bind_ortvalue_output(name, self._values[name])

    def _bind_inputs(self) -> None:
        for name in self._inputs:
            self._io.bind_ortvalue_input(name, self._values[name])

    def run(self) -> None:
        """Run the session on the bound arrays."""
        try:
            if self._on_device:  # a device's copy of an input is made when it is bound
                self._bind_inputs()
            self._session.run_with_iobinding(self._io)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise ArtifactError(
                f"the engine failed: {_first_line(error)}", "a model this engine can run", "kd-edge doctor"
            ) from error


def open_engine(
    artifact: Artifact, *, threads: int = 1, provider: Provider = "cpu", strict: bool = False
) -> OnnxRuntimeEngine:
    """Load an artifact's streaming step.

    Args:
        artifact: Verified by ``artifact.load``.
        threads: Of the engine; idle ones sleep instead of spinning, so a robot's other work keeps its cores.
        provider: What to run on. An unusable ``cuda`` falls back to the CPU and says so in ``fallback_reason``.
        strict: Make that fallback an error.

    Raises:
        ArtifactError: Not a streaming step, shapes that contradict the manifest, or a graph the engine refuses.
        MissingExtraError: onnxruntime is not installed.
    """
    manifest = artifact.manifest
    if manifest.graph != "step":
        raise ArtifactError(
            f"{artifact.path} holds a {manifest.graph} graph", "a streaming step", "export it with --graph step"
        )
    ort, session, reason = _open(artifact, threads, provider, strict)
    _check_graph(session, artifact.path, *step_shapes(manifest, 0))
    return OnnxRuntimeEngine(ort, session, manifest, reason)


class ClipEngine:
    """A clip graph in an ONNX Runtime session: for evaluation, not for a stream."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def logits(self, frames: Float32) -> Float32:
        """Logits (K,) of a clip's network input (T, C, S, S)."""
        try:
            answer: Float32 = self._session.run(["logits"], {"clip": frames[None]})[0][0]
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise ArtifactError(
                f"the engine failed: {_first_line(error)}", "a model this engine can run", "kd-edge doctor"
            ) from error
        return answer


def open_clip_engine(artifact: Artifact, *, threads: int = 1) -> ClipEngine:
    """Load an artifact's clip graph, on the CPU.

    Raises:
        ArtifactError: Not a clip graph, shapes that contradict the manifest, or a graph the engine refuses.
        MissingExtraError: onnxruntime is not installed.
    """
    manifest, spec = artifact.manifest, artifact.manifest.preprocess
    if manifest.graph != "clip":
        raise ArtifactError(
            f"{artifact.path} holds a {manifest.graph} graph", "a clip graph", "export it with --graph clip"
        )
    _, session, _ = _open(artifact, threads, "cpu", strict=False)
    clip = (0, manifest.segments, spec.input_channels, spec.input_px, spec.input_px)
    _check_graph(session, artifact.path, {"clip": clip}, {"logits": (0, len(manifest.labels))})
    return ClipEngine(session)


def _open(artifact: Artifact, threads: int, provider: Provider, strict: bool) -> tuple[Any, Any, str | None]:
    """onnxruntime, a session on the wanted provider or the CPU, and why it is not the wanted one."""
    ort = load_onnxruntime(EXTRAS[provider])
    if not hasattr(ort, "InferenceSession"):  # a half-removed install leaves an empty namespace package behind
        raise MissingExtraError(
            "onnxruntime is damaged", "a whole package", f"pip install --force-reinstall 'kd-edge[{EXTRAS[provider]}]'"
        )
    reason = None
    wanted = [PROVIDERS["cpu"]]
    if PROVIDERS[provider] in ort.get_available_providers():
        wanted = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    elif provider != "cpu":
        reason = f"{provider} was asked for, this onnxruntime has no {PROVIDERS[provider]}"
    session = _session(ort, artifact, threads, wanted)
    if reason is None and session.get_providers()[0] != PROVIDERS[provider]:
        reason = f"{provider} was asked for, the session runs on {session.get_providers()[0]}"
    if reason is not None and strict:
        raise ArtifactError(reason, f"the {provider} provider", "kd-edge doctor, or leave out --strict to use the CPU")
    return ort, session, reason


def _session(ort: Any, artifact: Artifact, threads: int, providers: list[str]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters comes back as an exception or in get_providers()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(artifact.path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ArtifactError(
            f"{artifact.path} is refused by onnxruntime {ort.__version__}: {_first_line(error)}",
            "a graph this version can run",
            "pip install --upgrade onnxruntime, or export the run again",
        ) from error


def _check_graph(
    session: Any, path: Path, inputs: Mapping[str, tuple[int, ...]], outputs: Mapping[str, tuple[int, ...]]
) -> None:
    """The graph must have the names and sizes its manifest promises; the batch axis is free."""
    given = {node.name: tuple(node.shape) for node in [*session.get_inputs(), *session.get_outputs()]}
    for name, shape in (dict(inputs) | dict(outputs)).items():
        found = given.get(name)
        if found is None or found[1:] != shape[1:]:
            raise ArtifactError(f"{path} has {name} {found}", f"{name} (batch, {shape[1:]})", "export the run again")
    if surplus := [node.name for node in session.get_inputs() if node.name not in inputs]:
        raise ArtifactError(
            f"{path} has input {surplus[0]}, which its manifest does not name",
            f"the inputs {', '.join(inputs)}",
            "export the run again",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
