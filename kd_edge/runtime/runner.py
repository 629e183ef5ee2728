"""Runs steps on the engine in use and, once it has failed, on the next one that passes the model's self-test."""

from __future__ import annotations

import threading

from kd_edge.artifact import GoldenClip, Manifest
from kd_edge.engines import Binding, Engine, Ladder, StepEngine
from kd_edge.errors import ArtifactError, EngineError
from kd_edge.runtime.self_test import self_test
from kd_edge.types import NO_CAUSE, Cause, Reason


class StepRunner:
    """One model's engine, with arrays for each number of sources. It belongs to the thread that runs it.

    Args:
        manifest: Of the model.
        engine: What runs it.
        ladder: Its engine is ``engine``; the next one takes over where it fails, once. None: there is no other.
        golden: What an engine must reproduce; None leaves the self-test out.

    Attributes:
        engine: The one in use.
        degraded: Why labels are ``degraded``: a fallback engine, or a self-test that failed and was accepted.
        self_test_error: Largest difference from the golden logits; None where nothing was compared.
    """

    def __init__(
        self, manifest: Manifest, engine: StepEngine, *, ladder: Ladder | None = None, golden: GoldenClip | None = None
    ) -> None:
        self._manifest, self._ladder, self._golden = manifest, ladder, golden
        self.engine = engine
        self.degraded = _fallback(engine)
        self.self_test_error: float | None = None
        self._bindings: dict[int, Binding] = {}
        self._room: int | None = None  # for how many sources the engine had room at once, where it lacked some
        self._has_stepped_down = False
        self._refusal: tuple[str, str, str] | None = None  # why no label may come: see ``_go_on``
        self._ending = threading.RLock()  # entered again by a signal's handler that closes in this thread
        self._is_retired = self._is_closed = False

    @property
    def awaited(self) -> str | None:
        """A better engine than the one in use that would run here, were its plan built; None where there is none."""
        return None if self._ladder is None else self._ladder.awaited()

    @property
    def room(self) -> int | None:
        """For how many sources a step has room; None for any number."""
        bounds = [n for n in (self._room, getattr(self.engine, "max_batch", None)) if n is not None]
        return min(bounds, default=None)

    def binding(self, batch: int) -> Binding:
        """The engine's arrays for so many sources."""
        if batch not in self._bindings:
            self._bindings[batch] = self.engine.bind(batch)
        return self._bindings[batch]

    def bind_or_step_down(self, batch: int) -> Binding | None:
        """Arrays for so many sources; the next engine's, if there is one, where this one cannot give them.

        Returns:
            None where no engine can that may be asked: half as many may do, and ``room`` says so from then on.

        Raises:
            ArtifactError: Not even for a single source, or the engine that was to go on failed the self-test.
        """
        self._check_refusal()
        try:
            try:
                return self.binding(batch)
            except ArtifactError as error:
                if not self._go_on(error.found):
                    raise
                return self.binding(batch)
        except ArtifactError:
            if batch == 1 or self._refusal is not None:
                raise
            self._room = batch // 2
            return None

    def run(self, binding: Binding, batch: int) -> Binding:
        """Run a step; where the engine fails for the first time, the next one runs it on the same inputs.

        Returns:
            The binding with the outputs.

        Raises:
            ArtifactError: It failed and no other engine goes on, that one failed too, or it failed the self-test.
        """
        self._check_refusal()
        try:
            binding.run()
        except ArtifactError as error:
            inputs = {name: array.copy() for name, array in binding.inputs.items()}  # they may go with the engine
            if not self._go_on(error.found):
                raise
            binding = self.binding(batch)
            for name, array in inputs.items():
                binding.inputs[name][:] = array
            binding.run()
        return binding

    def _go_on(self, why: str) -> bool:
        """Whether another engine goes on in the place of the one that has failed while frames come, for the first time.

        Raises:
            ArtifactError: It fails the self-test; from then on every step does: no label is to come of such an engine.
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
            raise ArtifactError(*self._refusal)  # a new one: one that is raised again keeps all frames it ever met

    def _step_down(self, why: str) -> bool:
        """Whether another engine goes on in the place of the one in use, which has failed; labels are ``degraded``.

        Raises:
            EngineError: It was closed, before or meanwhile: opening an engine may take minutes. No engine stays open.
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
            self._is_closed = True  # the one in use, too: the ladder closes what has failed
        engine.close()
        raise _closed()

    def prove(self, *, accept: bool) -> None:
        """Run the golden clip, on the next engine where its logits are not reproduced, or warm the engine up.

        Args:
            accept: Go on with ``degraded`` labels where no engine reproduces them.

        Raises:
            ArtifactError: No engine does, or none runs.
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
        """A first run, which plans memory, on the next engine where it fails."""
        try:
            self.binding(1).run()
        except ArtifactError as error:
            if not self._step_down(error.found):
                raise
            self._warm_up()

    def _another_engine(self) -> str:
        """The advice to take the engine that the model was proved on; empty where it is that one."""
        return "" if self.engine.name.startswith("onnxruntime") else "--engine onnxruntime, "

    def hand_over(self) -> None:
        """Let the next thread that runs a step be the one that does."""
        if isinstance(self.engine, Engine):
            self.engine.hand_over()

    def retire(self) -> None:
        """Let no other engine go on any more: this one is to be closed as soon as no step is under way."""
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
        "the recogniser was closed while another engine was to go on",
        "an open one",
        "load it again, and close it after the last push",
    )


def _fallback(engine: StepEngine) -> Cause:
    return Cause(Reason.FALLBACK, engine.fallback_reason) if engine.fallback_reason else NO_CAUSE
