"""What every engine does alike: the checks, the stepping, the closing. An engine's file adds how its library does it.

A new engine is a subclass of ``Engine`` with three methods (``_load``, ``_bind``, ``_unload``) and a line in the table
of ``kd_edge.engines``. Public methods check, those with an underscore do.
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
"""Where a graph is to run: the processor, an NVIDIA GPU, or the GPU or neural unit beside an Intel processor."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which engine runs a model, and why.

    Attributes:
        engine: Its name in ``kd_edge.engines.ENGINES``.
        text: The reason as one line.
        milliseconds: Median of a step on each engine that was measured, by name; empty when none had to be.
        out: Why engines that are installed cannot be used, by name.
        kept: Whether the answer stands in the cache folder; False too where nothing was measured.
    """

    engine: str
    text: str
    milliseconds: Mapping[str, float]
    out: Mapping[str, str]
    kept: bool


MOST_OWN = 4
"""So many batch sizes of ``infer`` and ``run_clip`` have arrays at a time."""


class Binding:
    """Arrays an engine reads from and writes to in place; fill the inputs, ``run``, read the outputs.

    All are float32 with the batch axis first, and zeros at first. A graph's arrays are attributes too:

    Attributes:
        inputs: What the graph reads, by name.
        outputs: What it writes, by name.
        frame: (B, C, S, S), input of a step or backbone graph.
        past: (B, T-1, D), input of a step graph: features of the older segments, oldest first.
        clip: (B, T, C, S, S), input of a clip graph.
        feature: (B, D), output of a step or backbone graph: of the new frame.
        logits: (B, K), output of a step or clip graph.
        states_in: (B, ...) each, inputs of a step graph: what the step before left behind; often none.
        states_out: Outputs of the same shapes, for the next step.

    Args:
        inputs: Read at every run.
        outputs: Written at every run.
        run: Runs the graph once on these arrays.
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
            ArtifactError: The engine failed; its own message is in the error.
            EngineError: It is closed.
        """
        try:
            self._run()
        except KdEdgeError:
            raise
        except Exception as error:  # an engine's exceptions are its own
            raise failed(error) from error

    def reset(self) -> None:
        """Fill the inputs with zeros: no older segment, no state."""
        for array in self.inputs.values():
            array.fill(0)

    def close(self) -> None:
        """Let go of the engine; the arrays stay readable."""
        self._run = _refuse


def carry(binding: Binding) -> None:
    """Make a run's states the next run's."""
    for before, after in zip(binding.states_in, binding.states_out, strict=True):
        before[:] = after


class StepEngine(Protocol):
    """What a recogniser asks of an engine; ``Engine`` is one, and so is what wraps one to measure it.

    Attributes:
        name: Engine and version, for reports.
        providers: What the engine really runs on, best first.
        fallback_reason: Why it does not run on what was asked for; None when it does.
    """

    name: str
    providers: tuple[str, ...]
    fallback_reason: str | None

    def bind(self, batch: int) -> Binding:
        """Make the arrays for ``batch`` sources; the caller keeps and reuses them."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


class Engine(ABC):
    """A loaded graph: a streaming step, a clip model or a bare backbone, as the manifest says.

    A context manager: leaving it closes it. Nothing runs after that.

    Attributes:
        key: Its name in ``kd_edge.engines.ENGINES``.
        library: Name under which the engine's library is imported.
        accepts: What it can run on where the machine has it.
        name: Engine and version, for reports.
        manifest: Of the artifact.
        tensors: Of the graph.
        providers: What the engine really runs on, best first.
        fallback_reason: Why it does not run on what was asked for; None when it does.
        choice: Why it was chosen; None where it was asked for by name.
        notes: What else is to be said of how it runs.
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
        """Load a graph and compare it with its manifest; see ``kd_edge.engines.open_engine``."""
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
                    "kd-edge doctor, or leave out --strict to use the CPU",
                )
            self._check_graph(found, artifact)
            artifact.check_unchanged()
        except KdEdgeError:
            self.close()
            raise
        except Exception as error:  # an engine's exceptions are its own
            self.close()
            raise ArtifactError(
                f"{artifact.path} is refused by {self.name}: {reason(error)}",
                "a graph this version can run",
                f"pip install --upgrade {self.library}, or export the run again",
            ) from error

    @classmethod
    def is_installed(cls) -> bool:
        """Whether the engine's library is there; it is not imported."""
        return importlib.util.find_spec(cls.library) is not None

    @classmethod
    def unsuited(cls, artifact: Artifact) -> str | None:
        """Why this engine cannot run an artifact, None when it can; its library is not imported."""
        return None

    @classmethod
    def obstacle(cls) -> str | None:
        """Why this machine cannot run it, None when it can; its library is not imported."""
        if cls.accepts != ("cuda",):
            return None
        try:
            find_gpu()
        except EngineError as error:
            return error.found
        return None

    @classmethod
    def is_ready(cls, artifact: Artifact) -> bool:
        """Whether it opens at once: nothing has to be built for this machine first."""
        return True

    def bind(self, batch: int) -> Binding:
        """Make the arrays for ``batch`` sources; the caller keeps and reuses them.

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
        except Exception as error:  # an engine's exceptions are its own
            raise failed(error) from error
        self._bindings.add(binding)
        return binding

    def check_inputs(self, inputs: Mapping[str, object]) -> int:
        """Compare arrays with what the graph reads.

        Returns:
            Their batch size B.

        Raises:
            EngineError: A name, dtype or shape is wrong.
        """
        return check_arrays(inputs, self.tensors.inputs)

    def infer(self, inputs: Mapping[str, Float32]) -> dict[str, Float32]:
        """One run on arrays of one's own, for tools and tests; a stream uses ``bind``.

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
        """Label whole clips: one run of a clip graph, or a step graph stepped through them from a reset state.

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

    def hand_over(self) -> None:  # noqa: B027 - most engines do not care
        """Let the next thread that uses it be its owner, where an engine belongs to one thread."""

    def close(self) -> None:
        """Give back what the engine holds; its bindings run no more. Closing twice does nothing."""
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
        """Load the graph; set ``name``, ``providers`` and, when it runs elsewhere than asked, ``fallback_reason``.

        Any exception is told as a refusal of the file.

        Returns:
            What the graph really reads and writes, without the batch axis.
        """

    def _arrays(self, shapes: Shapes, batch: int) -> dict[str, Float32]:
        """Zeros for tensors, batch axis first; an engine whose device needs memory of its own kind overrides it."""
        return {name: np.zeros((batch, *shape), dtype=np.float32) for name, shape in shapes.items()}

    @abstractmethod
    def _bind(self, inputs: dict[str, Float32], outputs: dict[str, Float32]) -> Callable[[], None]:
        """Tie arrays to the graph; what is returned runs it once on them and allocates nothing of their size."""

    @abstractmethod
    def _unload(self) -> None:
        """Let go of the graph; also after a ``_load`` that failed half-way."""

    def _own(self, batch: int) -> Binding:
        """The binding of ``infer`` and ``run_clip`` for a batch: engines may hold on to what a binding takes."""
        if batch not in self._own_bindings:
            if len(self._own_bindings) == MOST_OWN:
                self._own_bindings.clear()
            self._own_bindings[batch] = self.bind(batch)
        return self._own_bindings[batch]

    def _check_open(self) -> None:
        if self._closed:
            _refuse()

    def _check_graph(self, found: Tensors, artifact: Artifact) -> None:
        """The graph must have the names and sizes its manifest promises; the batch axis is free."""
        given = found.inputs | found.outputs
        for name, shape in (self.tensors.inputs | self.tensors.outputs).items():
            if given.get(name) != shape:
                what = f"{name} {given[name]}" if name in given else f"no {name}"
                raise ArtifactError(
                    f"{artifact.path} has {what}", f"{name} {shape} behind the batch axis", "export the run again"
                )
        if surplus := [name for name in found.inputs if name not in self.tensors.inputs]:
            raise ArtifactError(
                f"{artifact.path} has input {surplus[0]}, which its manifest does not name",
                f"the inputs {', '.join(self.tensors.inputs)}",
                "export the run again",
            )


def failed(error: Exception) -> ArtifactError:
    """What a library's exception while running is told as."""
    return ArtifactError(f"the engine failed: {reason(error)}", "a model this engine can run", "kd-edge doctor")


def _refuse() -> None:
    raise EngineError("the engine is closed", "an open one", "open the model again, and close it after the last run")
