"""``auto``: which engine is the fastest here? Measured once for a model on a machine, kept in the cache folder, told.

The file (``engines.json``) is anyone's to damage or delete: what cannot be read, or was measured with other versions,
is measured again. An engine that ended the process while it was tried is not tried again.
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
"""How long engines are measured, all together."""
CLEARLY_FASTER = 0.95
"""Share of the first engine's time that another one must stay below to be taken."""
LEAST_ROUNDS, MOST_ROUNDS = 3, 1000
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
"""Largest difference between two engines by the largest output, on noise. Seen: 1e-6, and 3e-4 where one rounds to
16 bits what the other computes in 32."""
QUANTISED_TOLERANCE = 0.1
"""Of other precisions: rounding to 8 bits falls either way, seen up to 0.03."""

FILE = "engines.json"
WAIT_SECONDS = 20.0
"""How long another process that measures is waited for."""
MOST_BEGUN = 2
"""So many measurements that ended with their process are the engines' fault, not a power cut's."""
ENDED = f"the process ended twice while it was tried (delete {FILE} in the cache folder to try it again)"
MOST_KEPT = 64
MOST_BYTES = 1_000_000

Engines = Mapping[str, type[Engine]]
Line = Annotated[str, Field(max_length=500)]
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Timing(NamedTuple):
    """What one step takes on an engine, milliseconds."""

    minimum: float
    median: float


class Measured(NamedTuple):
    """What engines do with a model.

    Attributes:
        names: Engine and version, of those that compute the same.
        timings: Of the same ones.
        out: Why the others are out.
    """

    names: dict[str, str]
    timings: dict[str, Timing]
    out: dict[str, str]


class _Question(BaseModel):
    """What an answer depends on."""

    model_config = _CLOSED
    artifact: str = Field(pattern="^[0-9a-f]{64}$")
    versions: dict[Line, Line] = Field(max_length=16)
    cpu: Line
    threads: int
    provider: Line


class _Answer(BaseModel):
    """One line of the file."""

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
        """Whether measuring came to its end; else it was begun ``begun`` times."""
        return bool(self.median_ms)

    @model_validator(mode="after")
    def _is_among_those_asked_for(self) -> _Answer:
        if self.engine not in self.question.versions:
            raise ValueError(f"{self.engine} was not asked about")
        return self


class _File(BaseModel):
    """Answers, the newest first."""

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
    """Find the engine that runs a model fastest on this machine; the first one where none can be measured.

    Args:
        artifact: Verified by ``artifact.load``.
        engines: The table to choose from, by name.
        threads: Of the engine.
        provider: What to run on; engines that know nothing of it are left out.
        strict: Make a cache folder that cannot be written an error.
        known_only: Measure nothing: a stream waits for the answer.
        measure: Takes the model, the engines in question, threads and provider; ``measured`` by default.

    Raises:
        ConfigError: The answer cannot be kept, with ``strict``.
    """
    accepting = {name: kind for name, kind in engines.items() if provider in kind.accepts}
    suited = {name: kind for name, kind in accepting.items() if kind.is_installed() and kind.unsuited(artifact) is None}
    if len(suited) < 2:  # with none, opening the first one says what is missing
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
        known = _known(question)  # the process that was waited for may have found it
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
    """Measure and keep the answer; while it is measured the file says that it was begun."""
    _write(question, _suspicion(question, begun + 1), strict)
    try:
        found = measure(artifact, engines, question.threads, provider)
    except BaseException:  # what Python tells has not ended the process
        _write(question, None, strict=False)
        raise
    answer = _answer(question, found)
    if not answer.median_ms:  # nothing runs here today: its opening says why, and tomorrow it may
        _write(question, None, strict=False)
        return _choice(answer, "the first one", kept=False)
    if fault := _write(question, answer, strict):
        return _choice(answer, f"measured here; not kept: {fault}", kept=False)
    return _choice(answer, "measured here", kept=True)


def measured(artifact: Artifact, engines: Engines, threads: int, provider: Provider) -> Measured:
    """Run a model on several engines in turn, each on the same noise; the first one that runs judges the others.

    It takes ``SECONDS`` once all are open, longer where ``LEAST_ROUNDS`` do.

    Args:
        artifact: The model.
        engines: By name; a library that cannot be imported counts as an engine that fails.
        threads: Of each engine.
        provider: What to run on; an engine that falls back from it is out.
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
            judge = next(iter(bindings), name)
            if (fault := _fault(binding, bindings.get(judge, binding), _tolerance(artifact))) is not None:
                out[name] = fault + ("" if judge == name else f" ({names[judge]} judges)")
                continue
            names[name], bindings[name] = engine.name, binding
        return Measured(names, _timings(bindings, out, SECONDS), out)


def _timings(bindings: dict[str, Binding], out: dict[str, str], seconds: float) -> dict[str, Timing]:
    """Time runs in turn, so that load on the machine falls on all; one that fails moves to ``out``."""
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
    """Arrays of one source, full of noise, after a first run, which plans memory."""
    binding, rng = engine.bind(1), np.random.default_rng(0)
    for array in binding.inputs.values():
        array[:] = rng.standard_normal(array.shape, dtype=np.float32)
    binding.run()
    return binding


def _fault(binding: Binding, judge: Binding, tolerance: float) -> str | None:
    """What is wrong with an engine's outputs, measured by another one's; None where nothing is."""
    for name, array in binding.outputs.items():
        if not np.isfinite(array).all():
            return f"{name} not finite"
        wanted = judge.outputs[name]
        difference = float(np.abs(array - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))
        if difference > tolerance:
            return f"{name} off by {difference:.1g} of the largest value, tolerance {tolerance:g}"
    return None


def _tolerance(artifact: Artifact) -> float:
    return TOLERANCE.get(artifact.manifest.precision, QUANTISED_TOLERANCE)


def _suspicion(question: _Question, begun: int) -> _Answer:
    """What is kept while engines are tried: one that ends the process must not end it at every start."""
    _, *others = question.versions
    return _unmeasured(question, begun, dict.fromkeys(others, ENDED))


def _unmeasured(question: _Question, begun: int, out: dict[str, str]) -> _Answer:
    """The first engine, without figures."""
    return _answer(question, Measured({}, {}, out)).model_copy(update={"begun": begun})


def _known(question: _Question) -> _Answer | None:
    return next((answer for answer in _kept() if answer.question == question), None)


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other process measures; one that does is waited for, not for ever."""
    with ExitStack() as lock:
        try:
            is_alone = lock.enter_context(held(_path().with_suffix(".lock"), lambda: None, seconds=WAIT_SECONDS))
        except (KdEdgeError, OSError):  # no cache folder: nothing is kept, and that is told then
            is_alone = True
        yield is_alone


def _answer(question: _Question, found: Measured) -> _Answer:
    """The fastest one, or the first one where that is about as fast; where all are out, its opening says why."""
    first = next(iter(found.timings), next(iter(question.versions)))
    engine = min(found.timings, key=lambda name: found.timings[name].median, default=first)
    if engine != first and found.timings[engine].median > CLEARLY_FASTER * found.timings[first].median:
        engine = first  # what all machines have, where there is nothing to gain
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
    """The answers in the file; none where it is not there, damaged or not kd-edge's."""
    try:
        yield from _File.model_validate(read_json(read_bytes(_path(), MOST_BYTES).decode())).answers
    except (KdEdgeError, OSError, ValueError):
        return


def _write(question: _Question, answer: _Answer | None, strict: bool) -> str:
    """Put an answer in front of the others, the oldest of which go; None takes the question's out.

    Returns:
        Why it cannot be kept; an empty string when it is.

    Raises:
        ConfigError: It cannot be kept, with ``strict``.
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
                error.found, "a cache folder that can be written", f"set {CACHE_VARIABLE} to one, or name the engine"
            ) from error
        return error.found
    return ""
