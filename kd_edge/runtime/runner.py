"""Runs steps on an engine and, after it has failed once, on the next one that passes the model's self-test."""

from __future__ import annotations

import threading

from kd_edge.artifact import GoldenClip, Manifest
from kd_edge.engines import Binding, Engine, Ladder, StepEngine
from kd_edge.errors import ArtifactError, EngineError
from kd_edge.runtime.self_test import self_test
from kd_edge.types import NO_CAUSE, Cause, Reason


class StepRunner:
    """One model's engine and its input and output arrays, one set per batch size. Used by one thread at a time.

    Args:
        manifest: Manifest of the model.
        engine: Engine that runs it.
        ladder: The ladder whose current engine is ``engine``; its next engine takes over, once, when that one fails.
            None: no fallback.
        golden: Clip whose logits an engine must reproduce; None skips the self-test.

    Attributes:
        engine: The engine in use.
        degraded: Why labels are ``degraded``: a fallback engine, or a failed self-test that was accepted.
        self_test_error: Largest difference from the golden logits; None without a self-test.
    """

    def __init__(
        self, manifest: Manifest, engine: StepEngine, *, ladder: Ladder | None = None, golden: GoldenClip | None = None
    ) -> None:
        self._manifest, self._ladder, self._golden = manifest, ladder, golden
        self.engine = engine
        self.degraded = _fallback(engine)
        self.self_test_error: float | None = None
        self._bindings: dict[int, Binding] = {}
        self._room: int | None = None  # largest batch, once a larger one could not be allocated
        self._has_stepped_down = False
        self._refusal: tuple[str, str, str] | None = None  # why every step must fail: see ``_continue_on_next``
        self._ending = threading.RLock()  # reentrant: a signal handler may close in this thread
        self._is_retired = self._is_closed = False

    @property
    def awaited(self) -> str | None:
        """Name of a better engine that could run here once its plan is built; None if there is none."""
        return None if self._ladder is None else self._ladder.awaited()

    @property
    def room(self) -> int | None:
        """Largest number of sources per step; None if unlimited."""
        bounds = [n for n in (self._room, getattr(self.engine, "max_batch", None)) if n is not None]
        return min(bounds, default=None)

    def binding(self, batch: int) -> Binding:
        """The engine's arrays for a batch size."""
        if batch not in self._bindings:
            self._bindings[batch] = self.engine.bind(batch)
        return self._bindings[batch]

    def bind_or_step_down(self, batch: int) -> Binding | None:
        """Arrays for a batch size; from the next engine, if this one cannot allocate them.

        Returns:
            None if no engine can: ``room`` is then half as many.

        Raises:
            ArtifactError: Not even a single source fits, or the fallback engine failed its self-test.
        """
        self._check_refusal()
        try:
            try:
                return self.binding(batch)
            except ArtifactError as error:
                if not self._continue_on_next(error.found):
                    raise
                return self.binding(batch)
        except ArtifactError:
            if batch == 1 or self._refusal is not None:
                raise
            self._room = batch // 2
            return None

    def run(self, binding: Binding, batch: int) -> Binding:
        """Run a step; if the engine fails for the first time, the next one runs it on the same inputs.

        Returns:
            The binding with the outputs.

        Raises:
            ArtifactError: The engine failed and there is no other, or the other failed too, or its self-test did.
        """
        self._check_refusal()
        try:
            binding.run()
        except ArtifactError as error:
            inputs = {name: array.copy() for name, array in binding.inputs.items()}  # they may be freed with the engine
            if not self._continue_on_next(error.found):
                raise
            binding = self.binding(batch)
            for name, array in inputs.items():
                binding.inputs[name][:] = array
            binding.run()
        return binding

    def _continue_on_next(self, why: str) -> bool:
        """Replace an engine that failed on a frame by the next one, at most once; returns whether there was one.

        Raises:
            ArtifactError: The next engine fails the self-test; every later step then fails, too.
        """
        if self._has_stepped_down or not self._step_down(why):
            return False
        try:
            self.prove(accept=False)
        except ArtifactError as error:
            self._refusal = (error.found, error.expected, error.fix)
            raise
        return True

    def _check_refusal(self) -> None:
        if self._refusal is not None:
            raise ArtifactError(
                *self._refusal
            )  # a new one: re-raising an exception would keep its traceback's frames alive

    def _step_down(self, why: str) -> bool:
        """Replace the engine in use, which has failed, by the next one; returns whether there was one.

        Raises:
            EngineError: The runner was closed, possibly while the next engine was being opened. None stays open.
        """
        if self._is_retired:
            raise _closed()
        engine = None if self._ladder is None else self._ladder.step_down(why)
        if engine is None:
            return False
        with self._ending:
            if not self._is_retired:
                self.engine, self._has_stepped_down, self._room = engine, True, None
                self._bindings.clear()
                self.degraded = _fallback(engine)
                return True
            self._is_closed = True  # the failed engine was already closed by the ladder
        engine.close()
        raise _closed()

    def prove(self, *, accept: bool) -> None:
        """Run the golden clip, on the next engine if its logits are not reproduced; warm up if there is no clip.

        Args:
            accept: Continue with ``degraded`` labels if no engine reproduces the logits.

        Raises:
            ArtifactError: No engine reproduces them, or none runs.
        """
        if self._golden is None:
            self._warm_up()
            return
        while True:
            self.self_test_error, fault = self_test(self._golden, self._manifest, lambda: self.binding(1))
            if fault is None:
                return
            name = self.engine.name
            if self._step_down(f"the self-test failed: {fault}"):
                continue
            if not accept:
                raise ArtifactError(
                    f"the self-test on {name} failed: {fault}",
                    "the logits of the golden clip",
                    self._another_engine()
                    + "kd-edge doctor, export again, or accept degraded labels with self_test='accept'",
                )
            self.degraded = Cause(Reason.SELF_TEST, f"self-test failed: {fault}")
            return

    def _warm_up(self) -> None:
        """Run once, so that memory is planned; on the next engine if this one fails."""
        try:
            self.binding(1).run()
        except ArtifactError as error:
            if not self._step_down(error.found):
                raise
            self._warm_up()

    def _another_engine(self) -> str:
        """Advice to use onnxruntime, on which the export was verified; empty if it is already in use."""
        return "" if self.engine.name.startswith("onnxruntime") else "--engine onnxruntime, "

    def hand_over(self) -> None:
        """Let another thread run steps from now on."""
        if isinstance(self.engine, Engine):
            self.engine.hand_over()

    def retire(self) -> None:
        """Prevent further fallbacks: the engine will be closed as soon as no step is running."""
        with self._ending:
            self._is_retired = True

    def close(self) -> None:
        """Close the engine; nothing can be run after that. Closing twice does nothing."""
        with self._ending:
            was_closed, self._is_retired, self._is_closed = self._is_closed, True, True
        if not was_closed:
            self.engine.close()


def _closed() -> EngineError:
    return EngineError(
        "the recogniser was closed while a fallback engine was being opened",
        "an open recogniser",
        "load it again, and close it after the last push",
    )


def _fallback(engine: StepEngine) -> Cause:
    return Cause(Reason.FALLBACK, engine.fallback_reason) if engine.fallback_reason else NO_CAUSE
