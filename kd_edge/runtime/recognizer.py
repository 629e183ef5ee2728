"""Frames in, labels out: the streaming step and its memory. Has no thread and no clock of its own: deterministic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

import numpy as np

from kd_edge.artifact import Artifact, GoldenClip, Manifest
from kd_edge.artifact import load as load_artifact
from kd_edge.engines import CudaBinding, EngineName, Ladder, Provider, StepEngine, engine_ladder
from kd_edge.errors import ArtifactError, CameraError, ConfigError, EngineError
from kd_edge.runtime.clock import MAX_AHEAD_MS, STEP_BACK_NS, ahead_of, behind_of, duration, stamp_of
from kd_edge.runtime.guard import PushGuard
from kd_edge.runtime.labelling import Labeller, Pushed
from kd_edge.runtime.phases import span_of
from kd_edge.runtime.pushed_frame import PUSH_MANY, PushedFrame, kind_of
from kd_edge.runtime.rate import NeededRate
from kd_edge.runtime.recurrence import label_ns
from kd_edge.runtime.runner import StepRunner
from kd_edge.runtime.source import SourceState, check_frame
from kd_edge.types import Cause, Frame, Image, LabelState, Prediction, Reason

if TYPE_CHECKING:
    from typing import Self

    from kd_edge.artifact import Trust

SelfTest = Literal["raise", "accept", "off"]
MINIMUM_VALID_NS = 250_000_000
MAX_SOURCES = 8
MAX_VALID_MS = 3_600_000.0
RESET = Cause(Reason.RESET, "reset")
NOT_FINITE = Cause(Reason.NOT_FINITE, "the network gave no finite numbers")


class Recognizer:
    """Live action labels from one or several cameras of the same kind.

    ``push`` trusts no clock: given ``now_ns``, a stamp ahead of it or an expired label becomes a ``stale`` prediction.
    Without ``now_ns`` only stamps that go back can be detected.

    Every pushed frame is encoded once; its window uses the stored features of T-1 older frames, chosen by time stamp.
    The label is the class of highest mean log-probability over all windows that ended within one segment spacing
    (``smooth_ms``); with ``smooth_ms=0`` it is exactly the clip model's label of the newest window. Memory is fixed per
    source. Only one thread may push at a time. Call ``close``, or use a ``with`` block, to release the engine at once.

    A model with recurrent states (``manifest.states``, a causal TSM) steps once per segment spacing: frames in between
    are checked but not encoded, and give no prediction. Its first label after a start, reset or gap equals the clip
    model's; later ones also depend on frames before their window.

    Attributes:
        manifest: The artifact's manifest: labels, preprocessing, window.
        signed_by: Fingerprint of the key whose signature was verified; empty if no verification was requested.
        reasons: Number of predictions by reason.
        steps: Number of finished engine steps.
    """

    def __init__(
        self,
        manifest: Manifest,
        engine: StepEngine,
        *,
        valid_ms: float | None = None,
        max_ahead_ms: float = MAX_AHEAD_MS,
        max_sources: int = MAX_SOURCES,
        smooth_ms: float | None = None,
        ladder: Ladder | None = None,
        golden: GoldenClip | None = None,
    ) -> None:
        if manifest.graph != "step":
            raise ArtifactError(
                f"'{manifest.name}' is a {manifest.graph} graph", "a streaming step", "export it with --graph step"
            )
        self.manifest = manifest
        self._runner = StepRunner(manifest, engine, ladder=ladder, golden=golden)
        self.signed_by = ""
        valid_ns = max(label_ns(manifest), MINIMUM_VALID_NS)
        if valid_ms is not None:
            valid_ns = _bounded_ns("valid_ms", valid_ms, least_ms=1.0)
        self._labeller = Labeller(manifest, valid_ns)
        self._max_ahead_ns = _bounded_ns("max_ahead_ms", max_ahead_ms, least_ms=0.0)
        self.reasons: Counter[Reason] = Counter()
        self.steps = 0
        if not isinstance(max_sources, int) or max_sources < 1:
            raise ConfigError(f"max_sources {max_sources!r}", "at least 1", "correct it")
        self._max_sources = max_sources
        self._smooth_ns = span_of(manifest, smooth_ms)
        self._sources: dict[str, SourceState] = {}
        self._closed = False
        self._guard = PushGuard()

    @classmethod
    def load(
        cls,
        model: str | Path | Artifact,
        *,
        engine: EngineName = "onnxruntime",
        threads: int = 1,
        provider: Provider | None = None,
        strict: bool = False,
        cuda_binding: CudaBinding = "auto",
        self_test: SelfTest = "raise",
        valid_ms: float | None = None,
        max_ahead_ms: float = MAX_AHEAD_MS,
        max_sources: int = MAX_SOURCES,
        smooth_ms: float | None = None,
        trust: Trust | Path | str | None = None,
    ) -> Recognizer:
        """Load an artifact, run its golden clip and be ready.

        Args:
            model: Path of the artifact, ``bundled`` for the student in the package, or a loaded artifact.
            engine: What runs the model. ``auto`` takes the best engine that is ready: TensorRT, TensorRT-RTX or CUDA on
                a machine with a GPU, otherwise the fastest one on the CPU; if several are installed, they are measured
                once for two seconds, and the choice is kept in the cache folder (see ``engine.choice``). An engine that
                fails while loading, in its self-test or on a frame is replaced once by the next one; labels are then
                ``degraded``.
            threads: How many threads the engine may use.
            provider: ``cpu``, ``cuda`` (onnxruntime), ``gpu`` or ``npu`` (openvino); if it is unavailable, the CPU is
                used and labels are ``degraded``.
            strict: Make every fallback an error.
            cuda_binding: What allocates GPU memory for TensorRT: ``cuda-python``, ``pycuda``, or whichever is
                installed.
            self_test: What to do if the engine does not reproduce the golden clip's logits: ``raise``, or ``accept``
                and give ``degraded`` labels. ``off`` skips the test.
            valid_ms: How long a label may be acted on after its frame's capture, 1 ms to one hour. Default: one segment
                spacing (after that the window would miss its newest segment), or 1.5 for a model with states, but at
                least 250 ms.
            max_ahead_ms: How far a stamp may lie ahead of ``now_ns``.
            max_sources: Maximum number of sources, at least 1.
            smooth_ms: Labels average all windows that ended within this time: by default one segment spacing, at most
                ``clip_seconds``; 0 uses the newest window alone. Longer values give steadier but later labels.
            trust: Public key or folder of keys: the file must be signed with one of them.

        Raises:
            ArtifactError: The file is not an artifact, damaged or unsuitable, or the self-test failed.
            ConfigError: An unknown engine, provider or self-test, or a number out of range.
            MissingExtraError: The engine is not installed.
        """
        if self_test not in get_args(SelfTest):
            raise ConfigError(f"self_test {self_test!r}", f"one of {', '.join(get_args(SelfTest))}", "correct it")
        with PushGuard():  # a program that ends now must also wait for an engine under construction
            artifact = _verified(model, trust)
            ladder = engine_ladder(
                artifact, engine=engine, threads=threads, provider=provider, strict=strict, cuda_binding=cuda_binding
            )
            ladder.open()
            try:
                recognizer = cls(
                    artifact.manifest,
                    ladder.engine,
                    valid_ms=valid_ms,
                    max_ahead_ms=max_ahead_ms,
                    max_sources=max_sources,
                    smooth_ms=smooth_ms,
                    ladder=ladder,
                    golden=None if self_test == "off" else artifact.golden,
                )
                recognizer.signed_by = artifact.signed_by
                recognizer._runner.prove(accept=self_test == "accept")
                recognizer.hand_over()
            except BaseException:
                ladder.engine.close()
                raise
            return recognizer

    @property
    def valid_ns(self) -> int:
        """How long a label may be acted on after its frame's capture."""
        return self._labeller.valid_ns

    @property
    def needed_rate(self) -> NeededRate:
        """Frame rate that the model's window needs."""
        return self._labeller.needed_rate

    @property
    def engine(self) -> StepEngine:
        """What runs the model; ``engine.fallback_reason`` explains why it is not the requested one."""
        return self._runner.engine

    @property
    def self_test_error(self) -> float | None:
        """Largest difference from the golden logits; None without a self-test."""
        return self._runner.self_test_error

    @property
    def degraded_reason(self) -> str:
        """Why all labels are ``degraded`` (fallback engine, failed self-test); empty if they are not."""
        return self._runner.degraded.detail

    @property
    def awaited_engine(self) -> str | None:
        """Name of a better engine that could run here once its plan is built; None if there is none."""
        return self._runner.awaited

    def adopt(self, other: Recognizer) -> None:
        """Take over another recogniser's engine, between two frames; windows and counters stay.

        The state of this recogniser's engines (fallbacks, failures, self-test) is replaced by the other's.

        Args:
            other: Loaded and self-tested with the same model, possibly in another thread; closed by this call.

        Raises:
            ConfigError: The other recogniser has a different model.
            EngineError: One of them is closed, or another thread is pushing.
        """
        with self._guard:  # a concurrent close() closes the engine in use afterwards
            self._check_open()
            other._check_open()
            if other.manifest != self.manifest:
                raise ConfigError(
                    f"a recogniser of '{other.manifest.name}'",
                    f"a recogniser of the same model, '{self.manifest.name}'",
                    "load that file",
                )
            self._runner.close()
            self._runner = other._runner
            other._closed = True

    def hand_over(self) -> None:
        """Let another thread push from now on; a GPU engine belongs to one thread, at first the one that loaded it."""
        self._runner.hand_over()

    def close(self) -> None:
        """Close the engine; nothing can be pushed after that. An engine that was adopted is closed by its new owner.

        Waits at most two seconds for a push in another thread. A push that takes longer, or belongs to this thread,
        closes the engine when it ends; one that is opening another engine raises ``EngineError`` then.
        """
        if not self._closed:
            self._closed = True
            self._runner.retire()
            self._guard.once_free(lambda: self._runner.close())  # the engine in use by then

    def __reduce__(self) -> NoReturn:
        """Refuse copies: windows and engine belong to one process.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a Recognizer is not copied or pickled: load one with Recognizer.load where it is needed")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def push(
        self,
        frame: Image,
        captured_ns: int,
        source: str = "camera",
        *,
        frame_id: int | None = None,
        now_ns: int | None = None,
        truth: str | None = None,
    ) -> Prediction | None:
        """Encode one frame and label the window that ends with it.

        Args:
            frame: (H, W) or (H, W, 3) in R, G, B order, of the manifest's dtype. Values beyond its range are clipped.
            captured_ns: Time of capture, monotonic nanoseconds.
            source: Name of the camera; each has its own window.
            frame_id: The camera's frame number; by default frames are counted.
            now_ns: Current time of the same clock; becomes ``emitted_ns``.
            truth: Copied to the prediction.

        Returns:
            The prediction; ``stale`` if the frame's stamp lies ahead of ``now_ns`` or more than 10 s behind it (such a
            frame is ignored), or if the label has expired by then.
            None for a frame that is not newer than the source's last one (a duplicate or late frame), and for a frame
            between two steps of a model with states. Stamps that go back by more than 1 s mean that the clock stepped:
            the window is restarted.

        Raises:
            CameraError: Wrong dtype, channels or size, invalid stamp, source, number or truth, or too many sources. The
                frame was ignored.
            ArtifactError: The engine failed; the window restarts with the next frame.
            EngineError: The recogniser is closed (possibly while a fallback engine was being opened), or another thread
                is pushing.
        """
        with self._guard:
            return self._push({source: PushedFrame(frame, captured_ns, frame_id, truth)}, now_ns)[source]

    def push_many(
        self, frames: Mapping[str, tuple[Image, int] | Frame], *, now_ns: int | None = None
    ) -> dict[str, Prediction | None]:
        """Push one frame each of several sources as one batched step; results equal those of single pushes.

        Args:
            frames: ``(frame, captured_ns)`` by source, or a ``Frame``, whose number and truth go into the prediction.
            now_ns: Current time of the same clock; becomes ``emitted_ns``.

        Returns:
            What ``push`` returns, by source.

        Raises:
            CameraError: As for ``push``; all frames were ignored.
            ConfigError: ``frames`` is not a mapping by source.
        """
        if not isinstance(frames, Mapping):
            raise ConfigError(f"{kind_of(frames)} for push_many", "frames by source", PUSH_MANY)
        with self._guard:
            return self._push({source: PushedFrame.of(source, frame) for source, frame in frames.items()}, now_ns)

    def _push(self, frames: Mapping[str, PushedFrame], now_ns: int | None) -> dict[str, Prediction | None]:
        self._check_open()
        if now_ns is not None:
            now = stamp_of(now_ns, "now")
            if isinstance(now, Cause):
                raise ConfigError(f"now_ns {now_ns!r:.60}", "whole nanoseconds", "time.monotonic_ns()")
            now_ns = now
        stamps_ns = {source: self._checked(source, given) for source, given in frames.items()}
        self.expect(frames)
        results: dict[str, Prediction | None] = dict.fromkeys(frames)
        pushed = []
        for source, given in frames.items():
            stamp_ns = stamps_ns[source]
            wrong = None if now_ns is None else self._misplaced(stamp_ns, now_ns)
            if wrong is not None and now_ns is not None:
                number = self._sources[source].frames if given.frame_id is None else given.frame_id
                results[source] = self.stale(source, number, now_ns, now_ns, wrong)
            elif taken := self._observe(given, stamp_ns, source):
                pushed.append(taken)
        results.update(self._step(pushed, now_ns))
        for source, prediction in results.items():
            if prediction is not None:
                results[source] = prediction = prediction if now_ns is None else self.at(prediction, now_ns)
                self.reasons[prediction.reason] += 1
        return results

    def _checked(self, source: str, given: PushedFrame) -> int:
        """Check a frame and its source; returns its stamp."""
        if not isinstance(source, str):
            raise CameraError(f"source {source!r:.60}", "the name of a camera", "give each camera a name of its own")
        state = self._sources.get(source)
        if state is None or not state.knows(given.image):
            check_frame(given.image, self.manifest, source)
        given.check(source)
        stamp_ns = stamp_of(given.stamp)
        if isinstance(stamp_ns, Cause):
            raise CameraError(f"{source}: {stamp_ns.detail}", "whole nanoseconds", "time.monotonic_ns() at the capture")
        return stamp_ns

    def _misplaced(self, stamp_ns: int, now_ns: int) -> Cause | None:
        """Why a frame's stamp is implausible at ``now_ns``; None if it is plausible."""
        return ahead_of(now_ns, stamp_ns, self._max_ahead_ns) or behind_of(now_ns, stamp_ns)

    def at(self, prediction: Prediction, now_ns: int) -> Prediction:
        """A prediction as of ``now_ns``, which becomes ``emitted_ns``.

        It is ``stale`` if it has expired by then, was captured after that time, or ``now_ns`` is not a valid time.
        """
        captured_ns = prediction.captured_ns
        if not captured_ns - self._max_ahead_ns <= now_ns <= prediction.valid_until_ns:  # also true for NaN
            now = stamp_of(now_ns, "now")
            if isinstance(now, Cause):
                return self.stale(prediction.source, prediction.frame_id, captured_ns, captured_ns, now)
            if prediction.state is not LabelState.STALE:
                late = Cause(Reason.LATE, f"labelled {duration(now - captured_ns)} after its capture")
                cause = ahead_of(now, captured_ns, self._max_ahead_ns) or late
                return self.stale(prediction.source, prediction.frame_id, captured_ns, now, cause)
        return prediction if prediction.emitted_ns == now_ns else replace(prediction, emitted_ns=now_ns)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(
                "the recogniser is closed", "an open recogniser", "load it again, and close it after the last push"
            )

    def reset(self, source: str = "camera", cause: Cause = RESET) -> None:
        """Empty a source's window (after a reconnect or cut); its labels are ``warming`` until it is full again.

        The next frame may have any stamp. Does nothing for a source that was never pushed.
        """
        if source in self._sources:
            self._sources[source].restart(cause)

    def forget(self, source: str) -> None:
        """Drop a source and its memory, if it exists; it may come back as a new one."""
        self._sources.pop(source, None)

    def stale(self, source: str, frame_id: int, captured_ns: int, now_ns: int, cause: Cause) -> Prediction:
        """A ``stale`` prediction: for a watchdog that saw no fresh frame."""
        return self._labeller.stale(source, frame_id, captured_ns, now_ns, cause)

    def expect(self, sources: Iterable[str], *, focal: float | Mapping[str, float | None] | None = None) -> None:
        """Register sources before their first frames; known sources keep their state and lens.

        Args:
            sources: Their names.
            focal: Focal length of all cameras, or of each one by name, as a share of the frame's width; needed by
                models that crop some metres around a person. None: that of the training cameras.

        Raises:
            CameraError: Too many sources.
            ConfigError: An impossible focal length, or one that differs from a known source's.
        """
        sources = tuple(sources)
        focals = focal if isinstance(focal, Mapping) else dict.fromkeys(sources, focal)
        self._check_lenses(focals)
        new = [name for name in sources if name not in self._sources]
        if len(self._sources) + len(new) > self._max_sources:
            raise CameraError(
                f"source '{new[-1]}' beside {len(self._sources)} others",
                f"at most {self._max_sources} sources",
                "forget() those that ended, or load with a larger max_sources",
            )
        states = {name: SourceState(self.manifest, self._smooth_ns, focals.get(name)) for name in new}
        self._sources |= states  # all or none

    def _check_lenses(self, focals: Mapping[str, float | None]) -> None:
        """Refuse a different lens for a known source."""
        for name, wanted in focals.items():
            known = self._sources[name].focal if name in self._sources else None
            if wanted is not None and known is not None and wanted != known:
                raise ConfigError(
                    f"a focal length of {wanted:g} for source '{name}', which has {known:g}",
                    "one lens for a source, known before its first frame",
                    f"forget('{name}') before, or expect it earlier",
                )

    def _observe(self, given: PushedFrame, stamp_ns: int, source: str) -> Pushed | None:
        state = self._sources[source]
        if state.stamp_ns is not None and stamp_ns <= state.stamp_ns:
            back_ns = state.stamp_ns - stamp_ns
            if back_ns <= STEP_BACK_NS and not state.steps_back(stamp_ns):
                return None
            state.restart(Cause(Reason.CLOCK_JUMP, f"stamps went back by {duration(back_ns)}"))
        frame_id = state.frames if given.frame_id is None else given.frame_id
        state.observe(given.image, stamp_ns)
        return Pushed(source, state, stamp_ns, frame_id, given.truth)

    def _step(self, pushed: list[Pushed], now_ns: int | None) -> dict[str, Prediction]:
        """Encode the frames that are due for a step; returns predictions by source, none for frames in between."""
        results = {
            p.source: self._labeller.warming(p, "motion history", now_ns) for p in pushed if p.state.stack is None
        }
        due = [p for p in pushed if p.state.is_due]
        try:
            while due:
                room = self._runner.room or len(due)
                results |= self._encode(due[:room], now_ns)
                due = due[room:]
        except ArtifactError as error:  # labels of other sources in this step are lost, too
            for p in pushed:
                p.state.restart(Cause(Reason.ENGINE_FAILED, error.found))
            raise
        return results

    def _encode(self, batch: list[Pushed], now_ns: int | None) -> dict[str, Prediction]:
        """Run one batch over frames that can be encoded; returns predictions by source."""
        binding = self._runner.bind_or_step_down(len(batch))
        if binding is None:  # batch too large for the engine; nothing has run yet: split it
            half = len(batch) // 2
            return self._encode(batch[:half], now_ns) | self._encode(batch[half:], now_ns)
        errors_ns = [p.state.begin(binding, row) for row, p in enumerate(batch)]
        binding = self._runner.run(binding, len(batch))
        self.steps += 1
        results = {}
        for row, (p, error_ns) in enumerate(zip(batch, errors_ns, strict=True)):
            logits: list[float] = binding.logits[row].tolist()
            if not math.isfinite(
                sum(logits) + float(binding.feature[row].sum())
            ):  # a sum is finite only if all terms are
                p.state.restart(NOT_FINITE)
                results[p.source] = self._labeller.unlabelled(p, LabelState.UNKNOWN, NOT_FINITE, now_ns)
                continue
            p.state.end(binding, row)
            if error_ns is None:
                results[p.source] = self._labeller.warming(p, f"window of {self.manifest.clip_seconds:g} s", now_ns)
            else:
                results[p.source] = self._labeller.label(p, binding, row, error_ns, self._runner.degraded, now_ns)
        return results


def _verified(model: str | Path | Artifact, trust: Trust | Path | str | None) -> Artifact:
    if not isinstance(model, (str, Path, Artifact)):
        raise ConfigError(
            f"model {model!r:.60}",
            "the path of an artifact, 'bundled', or a loaded artifact",
            "kd_edge.artifact.default_model() finds one",
        )
    if isinstance(model, Artifact) and trust is None:
        return model
    return load_artifact(model.path if isinstance(model, Artifact) else model, trust=trust)


def _bounded_ns(option: str, value_ms: float, *, least_ms: float) -> int:
    is_number = isinstance(value_ms, (int, float, np.integer, np.floating)) and not isinstance(value_ms, bool)
    if not is_number or not least_ms <= value_ms <= MAX_VALID_MS:
        raise ConfigError(f"{option} {value_ms!r}", f"{least_ms:g} to {MAX_VALID_MS:,.0f} milliseconds", "correct it")
    return round(value_ms * 1e6)
