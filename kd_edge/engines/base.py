"""The base class of all engines: checks, stepping, closing. Each engine's module adds the calls of its library.

A new engine is a subclass of ``Engine`` with three methods (``_load``, ``_bind``, ``_unload``) and a line in the table
of ``kd_edge.engines``. Public methods check their arguments; methods with an underscore do the work.
"""

from __future__ import annotations

import importlib.util
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from kd_edge.artifact import Artifact
from kd_edge.engines.cuda import CudaBinding, find_gpu
from kd_edge.engines.tensors import Shapes, Tensors, check_arrays, tensors
from kd_edge.errors import ArtifactError, EngineError, KdEdgeError, reason
from kd_edge.types import Float32

if TYPE_CHECKING:
    from typing import Self

Provider = Literal["cpu", "cuda", "gpu", "npu"]
"""Device to run on: the CPU, an NVIDIA GPU, or the GPU or NPU of an Intel processor."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine selected for a model, and the reason.

    Attributes:
        engine: Its name in ``kd_edge.engines.ENGINES``.
        text: The reason as one line.
        milliseconds: Median time of a step on each engine that was measured, by name; empty if none was.
        out: Why installed engines cannot be used, by name.
        kept: Whether the measurement is stored in the cache folder.
    """

    engine: str
    text: str
    milliseconds: Mapping[str, float]
    out: Mapping[str, str]
    kept: bool


MOST_OWN = 4
"""Batch sizes for which ``infer`` and ``run_clip`` keep arrays at the same time."""


class Binding:
    """Arrays that an engine reads and writes in place: fill the inputs, call ``run``, read the outputs.

    All arrays are float32 with the batch axis first, initially zero. They are also attributes, by name:

    Attributes:
        inputs: Inputs of the graph, by name.
        outputs: Outputs of the graph, by name.
        frame: (B, C, S, S), input of a step or backbone graph.
        past: (B, T-1, D), input of a step graph: features of the older segments, oldest first.
        clip: (B, T, C, S, S), input of a clip graph.
        feature: (B, D), output of a step or backbone graph: feature of the new frame.
        logits: (B, K), output of a step or clip graph.
        states_in: (B, ...) each, recurrent inputs of a step graph; often none.
        states_out: Recurrent outputs of the same shapes, for the next step.

    Args:
        inputs: Arrays read at every run.
        outputs: Arrays written at every run.
        run: Function that runs the graph once on these arrays.
    """

    frame: Float32
    past: Float32
    clip: Float32
    feature: Float32
    logits: Float32

    def __init__(self, inputs: dict[str, Float32], outputs: dict[str, Float32], run: Callable[[], None]) -> None:
        self.inputs, self.outputs, self._run = inputs, outputs, run
        self.states_in = tuple(array for name, array in inputs.items() if name.startswith("state_in_"))
        self.states_out = tuple(array for name, array in outputs.items() if name.startswith("state_out_"))
        vars(self).update({name: array for name, array in (inputs | outputs).items() if not name.startswith("state_")})

    def run(self) -> None:
        """Run the graph once.

        Raises:
            ArtifactError: The engine failed; the error contains its message.
            EngineError: The engine is closed.
        """
        try:
            self._run()
        except KdEdgeError:
            raise
        except Exception as error:  # libraries raise exceptions of any type
            raise failed(error) from error

    def reset(self) -> None:
        """Set all inputs to zero: no older segments, no state."""
        for array in self.inputs.values():
            array.fill(0)

    def close(self) -> None:
        """Release the engine; the arrays stay readable."""
        self._run = _refuse


def carry(binding: Binding) -> None:
    """Copy the recurrent outputs of a run to the inputs of the next one."""
    for before, after in zip(binding.states_in, binding.states_out, strict=True):
        before[:] = after


class StepEngine(Protocol):
    """What a recogniser needs of an engine: implemented by ``Engine`` and by wrappers that measure one.

    Attributes:
        name: Engine and version, for reports.
        providers: The devices it actually runs on, best first.
        fallback_reason: Why it does not run on the requested device; None if it does.
    """

    name: str
    providers: tuple[str, ...]
    fallback_reason: str | None

    def bind(self, batch: int) -> Binding:
        """Allocate the arrays for ``batch`` sources; the caller keeps and reuses them."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class Engine(ABC):
    """A loaded graph: a streaming step, a clip model or a backbone, depending on the manifest.

    A context manager; leaving it closes the engine.

    Attributes:
        key: Its name in ``kd_edge.engines.ENGINES``.
        library: Import name of the engine's library.
        accepts: Devices that it supports.
        name: Engine and version, for reports.
        manifest: Manifest of the artifact.
        tensors: Inputs and outputs of the graph.
        providers: The devices it actually runs on, best first.
        fallback_reason: Why it does not run on the requested device; None if it does.
        choice: Why it was selected; None if it was requested by name.
        notes: Further remarks on how it runs.
    """

    key: ClassVar[str]
    library: ClassVar[str]
    accepts: ClassVar[tuple[Provider, ...]] = ("cpu",)
    name: str
    providers: tuple[str, ...]
    fallback_reason: str | None = None
    choice: Choice | None = None
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int = 1,
        provider: Provider = "cpu",
        strict: bool = False,
        cuda_binding: CudaBinding = "auto",
    ) -> None:
        """Load a graph and check it against its manifest; see ``kd_edge.engines.open_engine``."""
        self.cuda_binding = cuda_binding
        self.manifest, self.tensors = artifact.manifest, tensors(artifact.manifest)
        self.name = self.key
        self._closed = False
        self._bindings: weakref.WeakSet[Binding] = weakref.WeakSet()
        self._own_bindings: dict[int, Binding] = {}
        if (why := self.unsuited(artifact)) is not None:
            raise ArtifactError(
                f"{artifact.path} cannot run on {self.key}: {why}",
                "an artifact made for it",
                "choose another engine, for example --engine onnxruntime",
            )
        try:
            found = self._load(artifact, threads, provider)
            if strict and self.fallback_reason is not None:
                raise ArtifactError(
                    self.fallback_reason,
                    f"the {provider} provider",
                    "run kd-edge doctor, or omit --strict to use the CPU",
                )
            self._check_graph(found, artifact)
            artifact.check_unchanged()
        except KdEdgeError:
            self.close()
            raise
        except Exception as error:  # libraries raise exceptions of any type
            self.close()
            raise ArtifactError(
                f"{artifact.path} is refused by {self.name}: {reason(error)}",
                "a graph this version can run",
                f"pip install --upgrade {self.library}, or export the run again",
            ) from error

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the engine's library is installed, without importing it."""
        return importlib.util.find_spec(cls.library) is not None

    @classmethod
    def unsuited(cls, artifact: Artifact) -> str | None:
        """Why this engine cannot run an artifact, or None if it can; the library is not imported."""
        return None

    @classmethod
    def obstacle(cls) -> str | None:
        """Why this engine cannot run on this machine, or None if it can; the library is not imported."""
        if cls.accepts != ("cuda",):
            return None
        try:
            find_gpu()
        except EngineError as error:
            return error.found
        return None

    @classmethod
    def is_ready(cls, artifact: Artifact) -> bool:
        """Whether it opens without building anything for this machine first."""
        return True

    def bind(self, batch: int) -> Binding:
        """Allocate the arrays for ``batch`` sources; the caller keeps and reuses them.

        Raises:
            EngineError: The engine is closed, or the batch is empty.
            ArtifactError: The engine failed.
        """
        self._check_open()
        if batch < 1:
            raise EngineError(f"a batch of {batch}", "at least one source", "bind as many as are pushed at once")
        try:
            inputs, outputs = (self._arrays(shapes, batch) for shapes in self.tensors)
            binding = Binding(inputs, outputs, self._bind(inputs, outputs))
        except KdEdgeError:
            raise
        except Exception as error:  # libraries raise exceptions of any type
            raise failed(error) from error
        self._bindings.add(binding)
        return binding

    def check_inputs(self, inputs: Mapping[str, object]) -> int:
        """Check arrays against the inputs of the graph.

        Returns:
            The batch size B.

        Raises:
            EngineError: A name, dtype or shape is wrong.
        """
        return check_arrays(inputs, self.tensors.inputs)

    def infer(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        """Run the graph once on given arrays, for tools and tests; a stream uses ``bind``.

        Args:
            inputs: float32 arrays by name, batch axis first.

        Returns:
            The outputs by name.

        Raises:
            EngineError: The engine is closed, or a name, dtype or shape is wrong.
            ArtifactError: The engine failed.
        """
        self._check_open()
        binding = self._own(self.check_inputs(inputs))
        for name, array in inputs.items():
            binding.inputs[name][:] = array
        binding.run()
        return {name: array.copy() for name, array in binding.outputs.items()}

    def run_clip(self, clip: Float32) -> Float32:
        """Compute logits of whole clips: one run of a clip graph, or a step graph stepped through from a reset state.

        Args:
            clip: Network input (B, T, C, S, S) float32.

        Returns:
            Logits (B, K) float32.

        Raises:
            EngineError: The engine is closed, the dtype or shape is wrong, or the graph gives no logits.
            ArtifactError: The engine failed.
        """
        self._check_open()
        if "logits" not in self.tensors.outputs:
            raise EngineError(f"a {self.manifest.graph} graph", "a step or clip graph", "open the whole model")
        if self.manifest.graph == "clip":
            return self.infer({"clip": clip})["logits"]
        batch = check_arrays({"clip": clip}, {"clip": (self.manifest.segments, *self.tensors.inputs["frame"])})
        binding = self._own(batch)
        binding.reset()
        for segment in range(self.manifest.segments - 1):
            binding.frame[:] = clip[:, segment]
            binding.run()
            binding.past[:, segment] = binding.feature
            carry(binding)
        binding.frame[:] = clip[:, -1]
        binding.run()
        return binding.logits.copy()

    def hand_over(self) -> None:  # noqa: B027 - most engines belong to no thread
        """Allow another thread to use an engine that belongs to one thread."""

    def close(self) -> None:
        """Release all resources and disable the bindings. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        self._own_bindings.clear()
        for binding in self._bindings:
            binding.close()
        self._unload()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _load(self, artifact: Artifact, threads: int, provider: Provider) -> Tensors:
        """Load the graph; set ``name``, ``providers`` and, if another device is used, ``fallback_reason``.

        Any exception is reported as a refusal of the file.

        Returns:
            The actual inputs and outputs of the graph, without the batch axis.
        """

    def _arrays(self, shapes: Shapes, batch: int) -> dict[str, Float32]:
        """Allocate zeroed arrays, batch axis first; overridden for devices with special memory."""
        return {name: np.zeros((batch, *shape), dtype=np.float32) for name, shape in shapes.items()}

    @abstractmethod
    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        """Bind arrays to the graph; return a function that runs it once on them without allocating arrays."""

    @abstractmethod
    def _unload(self) -> None:
        """Release the graph; also called after a ``_load`` that failed half-way."""

    def _own(self, batch: int) -> Binding:
        """The cached binding of ``infer`` and ``run_clip``: engines may keep the memory of every binding made."""
        if batch not in self._own_bindings:
            if len(self._own_bindings) == MOST_OWN:
                self._own_bindings.clear()
            self._own_bindings[batch] = self.bind(batch)
        return self._own_bindings[batch]

    def _check_open(self) -> None:
        if self._closed:
            _refuse()

    def _check_graph(self, found: Tensors, artifact: Artifact) -> None:
        """Check that the graph has the names and sizes of its manifest; the batch axis is free."""
        given = found.inputs | found.outputs
        for name, shape in (self.tensors.inputs | self.tensors.outputs).items():
            if given.get(name) != shape:
                what = f"{name} {given[name]}" if name in given else f"no {name}"
                raise ArtifactError(
                    f"{artifact.path} has {what}", f"{name} {shape} behind the batch axis", "export the run again"
                )
        if surplus := [name for name in found.inputs if name not in self.tensors.inputs]:
            raise ArtifactError(
                f"{artifact.path} has input {surplus[0]}, which is not in its manifest",
                f"the inputs {', '.join(self.tensors.inputs)}",
                "export the run again",
            )


def failed(error: Exception) -> ArtifactError:
    """The error for a library's exception while running."""
    return ArtifactError(f"the engine failed: {reason(error)}", "a model this engine can run", "kd-edge doctor")


def _refuse() -> None:
    raise EngineError("the engine is closed", "an open one", "open the model again, and close it after the last run")
