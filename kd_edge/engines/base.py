"""What the runtime asks of an engine: preallocated arrays and one verb, run."""

from __future__ import annotations

from typing import Protocol

from kd_edge.artifact import Manifest
from kd_edge.types import Float32


class Binding(Protocol):
    """Arrays an engine reads from and writes to in place; fill the inputs, ``run``, read the outputs.

    Attributes:
        frame: (B, C, S, S) float32, input.
        past: (B, T-1, D) float32, input: features of the older segments, oldest first.
        feature: (B, D) float32, output: of the new frame.
        logits: (B, K) float32, output.
        states_in: (B, ...) float32 each, inputs: what the step before left behind, zeros at first; often none.
        states_out: Outputs of the same shapes, for the next step.
    """

    frame: Float32
    past: Float32
    feature: Float32
    logits: Float32
    states_in: tuple[Float32, ...]
    states_out: tuple[Float32, ...]

    def run(self) -> None:
        """Run the streaming step once.

        Raises:
            ArtifactError: The engine refused; its own message is in the error.
        """
        ...


class StepEngine(Protocol):
    """A loaded streaming step.

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


def state_names(count: int) -> tuple[list[str], list[str]]:
    """Names of a step graph's recurrent inputs and outputs, ``state_in_0`` ... and ``state_out_0`` ..."""
    return [f"state_in_{i}" for i in range(count)], [f"state_out_{i}" for i in range(count)]


def step_shapes(manifest: Manifest, batch: int) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the streaming step's inputs and outputs by name."""
    spec, size = manifest.preprocess, manifest.preprocess.input_px
    states = [(batch, *state.shape) for state in manifest.states]
    states_in, states_out = state_names(len(states))
    inputs: dict[str, tuple[int, ...]] = {
        "frame": (batch, spec.input_channels, size, size),
        "past": (batch, manifest.segments - 1, manifest.feature_size),
    }
    outputs: dict[str, tuple[int, ...]] = {
        "feature": (batch, manifest.feature_size),
        "logits": (batch, len(manifest.labels)),
    }
    return inputs | dict(zip(states_in, states, strict=True)), outputs | dict(zip(states_out, states, strict=True))


def carry(binding: Binding) -> None:
    """Make a run's states the next run's."""
    for before, after in zip(binding.states_in, binding.states_out, strict=True):
        before[:] = after
