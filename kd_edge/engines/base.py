"""What the runtime asks of an engine: preallocated arrays and one verb, run."""

from __future__ import annotations

from typing import Protocol

from kd_edge.types import Float32


class Binding(Protocol):
    """Arrays an engine reads from and writes to in place; fill the inputs, ``run``, read the outputs.

    Attributes:
        frame: (B, C, S, S) float32, input.
        past: (B, T-1, D) float32, input: features of the older segments, oldest first.
        feature: (B, D) float32, output: of the new frame.
        logits: (B, K) float32, output.
    """

    frame: Float32
    past: Float32
    feature: Float32
    logits: Float32

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
