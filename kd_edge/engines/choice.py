"""``auto``: find the fastest engine by measuring once per model and machine; the result is cached.

The cache file (``engines.json``) may be damaged or deleted by anyone: an entry that cannot be read, or was measured
with other versions, is measured again. An engine that crashes the process while it is measured is not tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Binding, Choice, Engine, Provider
from kd_edge.errors import ConfigError, KdEdgeError, printable
from kd_edge.files import CACHE_VARIABLE, cache_root, held, replacing
from kd_edge.machine import cpu_name
from kd_edge.packages import installed
from kd_edge.reading import read_bytes, read_json

SECONDS = 2.0
"""Duration of the measurement, all engines together."""
CLEARLY_FASTER = 0.95
"""Fraction of the first engine's time that another one must stay below to be selected."""
LEAST_ROUNDS, MOST_ROUNDS = 3, 1000
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
"""Largest difference between two engines on noise, relative to the largest output. Typical: 1e-6, and 3e-4 if one
rounds to 16 bits what the other computes in 32."""
QUANTISED_TOLERANCE = 0.1
"""Tolerance of other precisions: 8-bit rounding may fall either way; differences up to 0.03 were seen."""

FILE = "engines.json"
WAIT_SECONDS = 20.0
"""How long to wait for another process that is measuring."""
MOST_BEGUN = 2
"""After this many measurements that ended with their process, an engine is at fault and not a power cut."""
ENDED = f"the process ended twice while it was tried (delete {FILE} in the cache folder to try it again)"
MOST_KEPT = 64
MOST_BYTES = 1_000_000

Engines = Mapping[str, type[Engine]]
Line = Annotated[str, Field(max_length=500)]
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Timing(NamedTuple):
    """Time of one step on an engine, in milliseconds."""

    minimum: float
    median: float


class Measured(NamedTuple):
    """Result of measuring engines on a model.

    Attributes:
        names: Engine and version of each engine with correct results.
        timings: Their timings.
        out: Why the others are excluded.
    """

    names: dict[str, str]
    timings: dict[str, Timing]
    out: dict[str, str]


class _Question(BaseModel):
    """Everything that a measurement depends on."""

    model_config = _CLOSED
    artifact: str = Field(pattern="^[0-9a-f]{64}$")
    versions: dict[Line, Line] = Field(max_length=16)
    cpu: Line
    threads: int
    provider: Line


class _Answer(BaseModel):
    """One entry of the file."""

    model_config = _CLOSED
    question: _Question
    engine: Line
    name: Line
    minimum_ms: dict[Line, float] = Field(max_length=16)
    median_ms: dict[Line, float] = Field(max_length=16)
    out: dict[Line, Line] = Field(max_length=16)
    begun: int = Field(0, ge=0, le=1000)

    @property
    def ends(self) -> bool:
        """Whether the measurement was completed; if not, it was started ``begun`` times."""
        return bool(self.median_ms)

    @model_validator(mode="after")
    def _is_among_those_asked_for(self) -> _Answer:
        if self.engine not in self.question.versions:
            raise ValueError(f"{self.engine} was not asked about")
        return self


class _File(BaseModel):
    """Entries, newest first."""

    model_config = _CLOSED
    format: Literal[1] = 1
    answers: list[_Answer] = Field(max_length=MOST_KEPT)


def choose(
    artifact: Artifact,
    engines: Engines,
    *,
    threads: int = 1,
    provider: Provider = "cpu",
    strict: bool = False,
    known_only: bool = False,
    measure: Callable[[Artifact, Engines, int, Provider], Measured] | None = None,
) -> Choice:
    """Find the engine that runs a model fastest on this machine; the first one if none can be measured.

    Args:
        artifact: An artifact verified by ``artifact.load``.
        engines: Engines to choose from, by name.
        threads: Threads of the engine.
        provider: Device to run on; engines that do not support it are left out.
        strict: Raise an error if the cache folder cannot be written.
        known_only: Do not measure, because a running stream waits for the answer.
        measure: Called with the model, the candidate engines, threads and provider; ``measured`` by default.

    Raises:
        ConfigError: The result cannot be stored, with ``strict``.
    """
    accepting = {name: kind for name, kind in engines.items() if provider in kind.accepts}
    suited = {name: kind for name, kind in accepting.items() if kind.is_installed() and kind.unsuited(artifact) is None}
    if len(suited) < 2:  # if there is none, opening the first one reports what is missing
        name = next(iter(suited or accepting))
        shown = _version(accepting[name]) or name
        return Choice(name, f"engine {shown}, the only one here that can run this model", {}, {}, kept=False)
    question = _Question(
        artifact=artifact.manifest.sha256,
        versions={name: _version(kind) for name, kind in suited.items()},
        cpu=cpu_name()[:500],
        threads=threads,
        provider=provider,
    )
    if (known := _known(question)) is not None and known.ends:
        return _choice(known, "measured before", kept=True)
    if known_only:
        return _choice(_unmeasured(question, 0, {}), "not measured: a stream waits", kept=False)
    with _alone() as is_alone:
        known = _known(question)  # the other process may have measured meanwhile
        if known is not None and (known.ends or known.begun >= MOST_BEGUN):
            return _choice(known, "measured before" if known.ends else "not measured", kept=True)
        if not is_alone:
            return _choice(_unmeasured(question, 0, {}), "not measured: another process is doing so", kept=False)
        begun = 0 if known is None else known.begun
        return _measured_here(artifact, suited, question, provider, begun, strict, measure or measured)


def _measured_here(
    artifact: Artifact,
    engines: Engines,
    question: _Question,
    provider: Provider,
    begun: int,
    strict: bool,
    measure: Callable[[Artifact, Engines, int, Provider], Measured],
) -> Choice:
    """Measure and store the result; during the measurement the file records that it was started."""
    _write(question, _suspicion(question, begun + 1), strict)
    try:
        found = measure(artifact, engines, question.threads, provider)
    except BaseException:  # an exception is no crash of the process
        _write(question, None, strict=False)
        raise
    answer = _answer(question, found)
    if not answer.median_ms:  # no engine runs now; opening one reports why, and a later attempt may succeed
        _write(question, None, strict=False)
        return _choice(answer, "the first one", kept=False)
    if fault := _write(question, answer, strict):
        return _choice(answer, f"measured here; not kept: {fault}", kept=False)
    return _choice(answer, "measured here", kept=True)


def measured(artifact: Artifact, engines: Engines, threads: int, provider: Provider) -> Measured:
    """Time a model on several engines in turn, on the same noise; the first engine that runs is the reference.

    The timing takes ``SECONDS``, or longer if ``LEAST_ROUNDS`` rounds do.

    Args:
        artifact: The model.
        engines: Engines by name; one whose library cannot be imported counts as failed.
        threads: Threads of each engine.
        provider: Device to run on; an engine that falls back from it is excluded.
    """
    names: dict[str, str] = {}
    bindings: dict[str, Binding] = {}
    out: dict[str, str] = {}
    with ExitStack() as opened:
        for name, kind in engines.items():
            try:
                engine = opened.enter_context(kind(artifact, threads=threads, provider=provider, strict=True))
                binding = _warm(engine)
            except KdEdgeError as error:
                out[name] = error.found
                continue
            reference = next(iter(bindings), name)
            if (fault := _fault(binding, bindings.get(reference, binding), _tolerance(artifact))) is not None:
                out[name] = fault + ("" if reference == name else f" (compared with {names[reference]})")
                continue
            names[name], bindings[name] = engine.name, binding
        return Measured(names, _timings(bindings, out, SECONDS), out)


def _timings(bindings: dict[str, Binding], out: dict[str, str], seconds: float) -> dict[str, Timing]:
    """Time the engines in turn, so that other load affects all alike; one that fails moves to ``out``."""
    spent: dict[str, list[float]] = {name: [] for name in bindings}
    end = time.perf_counter() + seconds
    for turn in range(MOST_ROUNDS):
        if turn >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name, binding in list(bindings.items()):
            started = time.perf_counter()
            try:
                binding.run()
            except KdEdgeError as error:
                out[name] = error.found
                del bindings[name], spent[name]
            else:
                spent[name].append(1e3 * (time.perf_counter() - started))
    return {name: Timing(min(times), float(np.median(times))) for name, times in spent.items()}


def _warm(engine: Engine) -> Binding:
    """Bind arrays for one source, fill them with noise and run once, so that memory is allocated."""
    binding, rng = engine.bind(1), np.random.default_rng(0)
    for array in binding.inputs.values():
        array[:] = rng.standard_normal(array.shape, dtype=np.float32)
    binding.run()
    return binding


def _fault(binding: Binding, reference: Binding, tolerance: float) -> str | None:
    """How an engine's outputs differ from those of the reference, or None if they agree."""
    for name, array in binding.outputs.items():
        if not np.isfinite(array).all():
            return f"{name} not finite"
        wanted = reference.outputs[name]
        difference = float(np.abs(array - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))
        if difference > tolerance:
            return f"{name} off by {difference:.1g} of the largest value, tolerance {tolerance:g}"
    return None


def _tolerance(artifact: Artifact) -> float:
    return TOLERANCE.get(artifact.manifest.precision, QUANTISED_TOLERANCE)


def _suspicion(question: _Question, begun: int) -> _Answer:
    """The entry during a measurement: an engine that crashes the process must not do so at every start."""
    _, *others = question.versions
    return _unmeasured(question, begun, dict.fromkeys(others, ENDED))


def _unmeasured(question: _Question, begun: int, out: dict[str, str]) -> _Answer:
    """An entry for the first engine, without timings."""
    return _answer(question, Measured({}, {}, out)).model_copy(update={"begun": begun})


def _known(question: _Question) -> _Answer | None:
    return next((answer for answer in _kept() if answer.question == question), None)


@contextmanager
def _alone() -> Iterator[bool]:
    """Yield whether no other process is measuring, after waiting a limited time for one that is."""
    with ExitStack() as lock:
        try:
            is_alone = lock.enter_context(held(_path().with_suffix(".lock"), lambda: None, seconds=WAIT_SECONDS))
        except (KdEdgeError, OSError):  # no cache folder: the write below reports it
            is_alone = True
        yield is_alone


def _answer(question: _Question, found: Measured) -> _Answer:
    """The fastest engine, or the first one if that is about as fast or all are excluded."""
    first = next(iter(found.timings), next(iter(question.versions)))
    engine = min(found.timings, key=lambda name: found.timings[name].median, default=first)
    if engine != first and found.timings[engine].median > CLEARLY_FASTER * found.timings[first].median:
        engine = first  # every machine has it, and another one gains nothing
    return _Answer(
        question=question,
        engine=engine,
        name=(found.names.get(engine) or question.versions[engine] or engine)[:500],
        minimum_ms={name: timing.minimum for name, timing in found.timings.items()},
        median_ms={name: timing.median for name, timing in found.timings.items()},
        out={name: printable(why)[:500] for name, why in found.out.items()},
    )


def _choice(answer: _Answer, how: str, *, kept: bool) -> Choice:
    times, text = answer.median_ms, f"engine {answer.name}"
    if (own := times.get(answer.engine)) is not None:
        others = ", ".join(
            f"{name} {ms:.2f}" + (", hardly faster" if ms < own else "")
            for name, ms in times.items()
            if name != answer.engine
        )
        text += f": {own:.2f} ms a step" + (f" ({others})" if others else "")
    text += f", {how}"
    text += "".join(f"; not {name}: {why}" for name, why in answer.out.items())
    return Choice(answer.engine, printable(text), times, answer.out, kept)


def _version(kind: type[Engine]) -> str:
    return " ".join(f"{name} {version}" for name, version in installed(kind.library).items())[:500]


def _path() -> Path:
    return cache_root() / FILE


def _kept() -> Iterator[_Answer]:
    """The entries of the file; none if it is missing, damaged or foreign."""
    try:
        yield from _File.model_validate(read_json(read_bytes(_path(), MOST_BYTES).decode())).answers
    except (KdEdgeError, OSError, ValueError):
        return


def _write(question: _Question, answer: _Answer | None, strict: bool) -> str:
    """Store an entry before the others and drop the oldest; None removes the entry of the question.

    Returns:
        Why it cannot be stored; empty on success.

    Raises:
        ConfigError: It cannot be stored, with ``strict``.
    """
    try:
        path = _path()
        others = [other for other in _kept() if other.question != question]
        answers = [*([] if answer is None else [answer]), *others][:MOST_KEPT]
        with replacing(path, ConfigError) as file:
            file.write(_File(answers=answers).model_dump_json(indent=1).encode())
    except ConfigError as error:
        if strict:
            raise ConfigError(
                error.found, "a writable cache folder", f"set {CACHE_VARIABLE} to one, or name the engine"
            ) from error
        return error.found
    return ""
