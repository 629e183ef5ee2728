"""Frames in, labels out: the streaming step with its memory. No thread and no clock of its own: deterministic."""

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

    ``push`` believes no clock: given ``now_ns``, a stamp ahead of it, or a label that has run out, becomes a ``stale``
    prediction. Without ``now_ns`` it can only see that stamps go back.

    Every pushed frame is encoded once; its window uses the features of T-1 older frames, chosen by time stamp. Its
    label is that of the mean log-probability of all windows that end within one segment spacing (``smooth_ms``); with
    ``smooth_ms=0`` it is exactly the clip model's of the newest window. Memory is fixed per source. One thread pushes
    at a time. ``close`` it, or leave its ``with`` block, to give back the engine at once.

    A model with recurrent states (``manifest.states``, a causal TSM) steps once per segment spacing: frames in between
    are taken in, not encoded, and give no prediction. Its first label after a start, reset or gap is the clip model's;
    later ones remember what came before their window, another function of the same weights.

    Attributes:
        manifest: What the artifact says of itself: labels, preprocessing, window.
        signed_by: Fingerprint of the key whose signature was checked; empty where none was asked for.
        reasons: How often each reason was given.
        steps: How many steps the engine has finished.
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
            model: Path of the artifact, ``bundled`` for the student in the package, or one that is loaded already.
            engine: What runs the model; ``auto`` takes the best one that is ready: TensorRT, TensorRT-RTX or CUDA where
                there is a GPU, else the fastest one on the CPU: where several are installed it measures them for two
                seconds once, and keeps the answer in the cache folder (``engine.choice`` tells). One that fails, here,
                in its self-test or while frames come, steps down once to the next one, and labels are ``degraded``.
            threads: How many the engine may use.
            provider: ``cpu``, ``cuda`` (onnxruntime), ``gpu`` or ``npu`` (openvino); one that is not there falls back
                to the CPU and labels are ``degraded``.
            strict: Make every fallback an error.
            cuda_binding: What gives TensorRT the GPU's memory: ``cuda-python``, ``pycuda``, or whichever is installed.
            self_test: What to do when the golden clip's logits are not reproduced: ``raise``, or ``accept`` with
                ``degraded`` labels. ``off`` leaves the test out.
            valid_ms: How long a label may be acted on after its frame's capture; by default one segment spacing (then
                the window would miss its newest segment), 1.5 for a model with states, at least 250 ms.
                Between 1 ms and an hour.
            max_ahead_ms: How far a stamp may lie ahead of ``now_ns``.
            max_sources: Bound on the number of sources, at least 1.
            smooth_ms: How long a window counts in the label: by default one segment spacing, at most ``clip_seconds``;
                0 is the newest window alone. Longer is steadier and later.
            trust: Public key or folder of keys: the file must be signed with one of them.

        Raises:
            ArtifactError: Foreign, damaged or unsuitable file, or the self-test failed.
            ConfigError: An unknown engine, provider or self-test, or a number that makes no sense.
            MissingExtraError: The engine is not installed.
        """
        if self_test not in get_args(SelfTest):
            raise ConfigError(f"self_test {self_test!r}", f"one of {', '.join(get_args(SelfTest))}", "correct it")
        with PushGuard():  # an engine that is being made is as native as one that runs
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
        """Which frame rate the model's window needs."""
        return self._labeller.needed_rate

    @property
    def engine(self) -> StepEngine:
        """What runs the model; ``engine.fallback_reason`` tells why it is not what was asked for."""
        return self._runner.engine

    @property
    def self_test_error(self) -> float | None:
        """Largest difference from the golden logits; None when there was no self-test."""
        return self._runner.self_test_error

    @property
    def degraded_reason(self) -> str:
        """Why all labels are ``degraded`` (fallback engine, failed self-test); empty when they are not."""
        return self._runner.degraded.detail

    @property
    def awaited_engine(self) -> str | None:
        """A better engine than the one in use that would run here, were its plan built; None where there is none."""
        return self._runner.awaited

    def adopt(self, other: Recognizer) -> None:
        """Go on with another recogniser's engine, between two frames; windows and counts stay.

        What became of this one's engines is forgotten with them; the other's self-test is that of engines to come.

        Args:
            other: Of the same model, loaded and self-tested, perhaps in another thread; it is used up.

        Raises:
            ConfigError: It is of another model.
            EngineError: One of them is closed, or another thread pushes just now.
        """
        with self._guard:  # whoever closes this one meanwhile closes the engine that it has then
            self._check_open()
            other._check_open()
            if other.manifest != self.manifest:
                raise ConfigError(
                    f"a recogniser of '{other.manifest.name}'",
                    f"one of the same '{self.manifest.name}'",
                    "load that file",
                )
            self._runner.close()
            self._runner = other._runner
            other._closed = True

    def hand_over(self) -> None:
        """Let the next thread that pushes be the one that does; a GPU's engine belongs to the thread that loaded it."""
        self._runner.hand_over()

    def close(self) -> None:
        """Close the engine; nothing can be pushed after that. One that was adopted is the other's to close.

        A push that is under way ends before: that of another thread is waited for, two seconds at most. One that takes
        longer, or is this thread's own, closes the engine when it ends; one that opens another engine raises
        ``EngineError`` then.
        """
        if not self._closed:
            self._closed = True
            self._runner.retire()
            self._guard.once_free(lambda: self._runner.close())  # of the engine that it has then

    def __reduce__(self) -> NoReturn:
        """Refuse copies: windows and an engine belong to one process.

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
            captured_ns: Moment of capture, monotonic nanoseconds.
            source: Which camera; each has its own window.
            frame_id: The camera's number of the frame; by default frames are counted.
            now_ns: This moment by the same clock; becomes ``emitted_ns``.
            truth: Passed through to the prediction.

        Returns:
            The prediction, ``stale`` when the frame's stamp lies ahead of ``now_ns`` or more than 10 s behind it (such
            a frame is not taken in), or when the label has run out by then;
            None for a frame that is not newer than the source's last one (delivered twice or late), and for a frame
            between two steps of a model with states. Stamps that go back by more than 1 s are of a clock that
            stepped: the window starts anew.

        Raises:
            CameraError: Wrong dtype, channels or size, a stamp that is no number, a source, number or truth that is
                none, or too many sources. The frame was not taken in.
            ArtifactError: The engine failed; the window starts anew with the next frame.
            EngineError: It is closed, also while another engine was opened in here, or another thread pushes just now.
        """
        with self._guard:
            return self._push({source: PushedFrame(frame, captured_ns, frame_id, truth)}, now_ns)[source]

    def push_many(
        self, frames: Mapping[str, tuple[Image, int] | Frame], *, now_ns: int | None = None
    ) -> dict[str, Prediction | None]:
        """Push one frame of several sources as one batched step; the results are those of single pushes.

        Args:
            frames: ``(frame, captured_ns)`` by source, or a ``Frame``, whose number and truth go into the prediction.
            now_ns: This moment by the same clock; becomes ``emitted_ns``.

        Returns:
            Per source what ``push`` returns.

        Raises:
            CameraError: As ``push``; then no frame was taken in.
            ConfigError: It is not frames by source.
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
        """The stamp of a frame that may be taken in."""
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
        """Why a frame cannot have been captured when it says, seen from now."""
        return ahead_of(now_ns, stamp_ns, self._max_ahead_ns) or behind_of(now_ns, stamp_ns)

    def at(self, prediction: Prediction, now_ns: int) -> Prediction:
        """A prediction as of a moment, which becomes ``emitted_ns``.

        It is ``stale`` when it has run out by then, was captured later than that, or where that is no moment.
        """
        captured_ns = prediction.captured_ns
        if not captured_ns - self._max_ahead_ns <= now_ns <= prediction.valid_until_ns:  # nor is any NaN
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
                "the recogniser is closed", "an open one", "load it again, and close it after the last push"
            )

    def reset(self, source: str = "camera", cause: Cause = RESET) -> None:
        """Empty a source's window (reconnect, cut); its labels are ``warming`` until it is full again.

        The next frame may bear any stamp. A source that was never pushed has nothing to empty.
        """
        if source in self._sources:
            self._sources[source].restart(cause)

    def forget(self, source: str) -> None:
        """Drop a source and its memory, if there is one; it may come back as a new one."""
        self._sources.pop(source, None)

    def stale(self, source: str, frame_id: int, captured_ns: int, now_ns: int, cause: Cause) -> Prediction:
        """The prediction that says there is none: for a watchdog that saw no fresh frame."""
        return self._labeller.stale(source, frame_id, captured_ns, now_ns, cause)

    def expect(self, sources: Iterable[str], *, focal: float | Mapping[str, float | None] | None = None) -> None:
        """Make room for sources before their first frames; those that are known stay as they are, their lens too.

        Args:
            sources: Their names.
            focal: Focal length of the cameras, or of each one by name, as a share of the frame's width: a model that
                cuts out so many metres about a person needs it. None: that of the cameras it was trained with.

        Raises:
            CameraError: They are too many.
            ConfigError: No lens has such a focal length, or a source that is known has another one.
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
        self._sources |= states  # all of them, or none

    def _check_lenses(self, focals: Mapping[str, float | None]) -> None:
        """Refuse another lens for a source that is cut out already."""
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
        """Encode the frames that make a step; predictions by source, none for a frame in between."""
        results = {
            p.source: self._labeller.warming(p, "motion history", now_ns) for p in pushed if p.state.stack is None
        }
        due = [p for p in pushed if p.state.is_due]
        try:
            while due:
                room = self._runner.room or len(due)
                results |= self._encode(due[:room], now_ns)
                due = due[room:]
        except ArtifactError as error:  # what the others of this step were labelled is lost with it
            for p in pushed:
                p.state.restart(Cause(Reason.ENGINE_FAILED, error.found))
            raise
        return results

    def _encode(self, batch: list[Pushed], now_ns: int | None) -> dict[str, Prediction]:
        """Run one batch over frames that can be encoded; predictions by source."""
        binding = self._runner.bind_or_step_down(len(batch))
        if binding is None:  # no room for them all, and nothing was begun: the same frames in smaller steps
            half = len(batch) // 2
            return self._encode(batch[:half], now_ns) | self._encode(batch[half:], now_ns)
        errors_ns = [p.state.begin(binding, row) for row, p in enumerate(batch)]
        binding = self._runner.run(binding, len(batch))
        self.steps += 1
        results = {}
        for row, (p, error_ns) in enumerate(zip(batch, errors_ns, strict=True)):
            logits: list[float] = binding.logits[row].tolist()
            if not math.isfinite(sum(logits) + float(binding.feature[row].sum())):  # nor is a sum of what is not finite
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
            "the path of an artifact, 'bundled', or an artifact that is loaded",
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
