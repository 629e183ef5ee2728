"""Which engines may run a model, best first: where one fails, the next one goes on, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from kd_edge.artifact import Artifact
from kd_edge.engines.base import Engine, Provider
from kd_edge.engines.choice import choose
from kd_edge.errors import ArtifactError, ConfigError, KdEdgeError, MissingExtraError, printable
from kd_edge.packages import clash

AUTO = "auto"
LAST = "onnxruntime"
"""What every model is proved on when it is exported."""

Engines = Mapping[str, type[Engine]]
Opening = Callable[[str, Provider | None], Engine]
"""Opens an engine of the table by name, on a provider."""


class _Rung(NamedTuple):
    """An engine that may be tried.

    Attributes:
        engine: Its name; ``AUTO`` is the fastest one that runs on ``provider``.
        provider: What to run on; None is what the engine is made for.
        is_asked: Whether the user named it, whose mistakes are errors.
        is_ready: Whether it was found to be ready.
    """

    engine: str
    provider: Provider | None
    is_asked: bool = False
    is_ready: bool = False


class Ladder:
    """One model's engines: those on a GPU, best first, then the fastest on the CPU, then ONNX Runtime.

    An engine that was asked for by name is the first rung, and what is above it is left out. ``auto`` begins at the
    best one that is *ready*: installed, with a GPU to run on and nothing left to build.

    Args:
        artifact: Verified by ``artifact.load``.
        engines: The table of ``kd_edge.engines``; those that are for GPUs alone stand in it best first.
        opening: Opens one of them.
        engine: A name, or ``auto``.
        threads: Of each engine.
        provider: What to run on; None is what an engine is made for.
        strict: Make every step down an error.

    Attributes:
        engine: The one in use.
        faults: Why engines that should have run do not, by name.
    """

    engine: Engine

    def __init__(
        self,
        artifact: Artifact,
        engines: Engines,
        opening: Opening,
        *,
        engine: str = AUTO,
        threads: int = 1,
        provider: Provider | None = None,
        strict: bool = False,
    ) -> None:
        self._artifact, self._engines, self._opening = artifact, engines, opening
        self._threads, self._strict = threads, strict
        self._for_gpu = [name for name, kind in engines.items() if kind.accepts == ("cuda",)]
        self._tried: set[tuple[str, Provider]] = set()
        self._rungs = self._from(engine, provider)
        self._may_climb = engine == AUTO and provider in (None, "cuda")
        self._latest = ""
        self._is_running = False
        self.faults: dict[str, str] = {}

    def open(self) -> Engine:
        """Open the first engine that can be opened.

        Raises:
            ConfigError: A provider that the engine knows nothing of.
            ArtifactError: No engine can be opened, or a better one cannot, with ``strict``.
            MissingExtraError: The engine that was asked for is not installed.
        """
        fault: KdEdgeError | None = None
        for rung in self._rungs:
            try:
                opened = self._opened(rung)
            except (MissingExtraError, ConfigError) as error:
                if rung.is_asked or (rung.is_ready and self._strict):
                    raise
                if rung.is_ready:  # its plan is there: something else is missing, and that is to be told
                    fault = error
                    self.faults[rung.engine] = error.found
                continue  # what nobody asked for need not be there
            except KdEdgeError as error:
                if self._strict or (rung.is_asked and self._is_unsuited(rung)):
                    raise
                fault = error
                self.faults[self._latest or rung.engine] = error.found
                continue
            self.engine, self._is_running = opened, True
            if self.faults:
                said = [] if opened.fallback_reason is None else [opened.fallback_reason]
                said += [f"{name} failed: {why}" for name, why in self.faults.items()]
                opened.fallback_reason = printable(f"{'; '.join(said)}; {opened.name} goes on")
            return opened
        raise fault or ArtifactError(f"no engine runs {self._artifact.path}", "one", "kd-edge doctor")

    def step_down(self, why: str) -> Engine | None:
        """Close the engine in use, which has failed, and open the next one that can be opened.

        Args:
            why: What it failed at.

        Returns:
            The next one; None where there is none, or no step down is wanted: then the failed one stays open.
        """
        if self._strict:
            return None
        failed = self.engine
        self.faults[failed.key] = why
        try:
            engine = self.open()
        except KdEdgeError:
            return None
        failed.close()
        return engine

    def awaited(self) -> str | None:
        """A better engine than the one in use that ``auto`` would take, were its plan built; None where none is."""
        for name in self._for_gpu if self._may_climb else ():
            if name == self.engine.key:
                return None
            if name not in self.faults and self._could_run(name):
                return name
        return None

    def _from(self, engine: str, provider: Provider | None) -> Iterator[_Rung]:
        """The rungs from an engine downwards."""
        if engine == AUTO:
            if self._may_climb:
                yield from self._ready(self._for_gpu)
            yield _Rung(AUTO, provider or "cpu", is_asked=True)
        elif engine in self._for_gpu:
            yield _Rung(engine, provider, is_asked=True)
            yield from self._ready(self._for_gpu[self._for_gpu.index(engine) + 1 :])
            yield _Rung(AUTO, "cpu")
        else:
            yield _Rung(engine, provider, is_asked=True)
        if (LAST, "cpu") not in self._tried:
            yield _Rung(LAST, "cpu")

    def _ready(self, names: list[str]) -> Iterator[_Rung]:
        for name in names:
            if self._could_run(name) and self._engines[name].is_ready(self._artifact):
                yield _Rung(name, None, is_ready=True)

    def _could_run(self, name: str) -> bool:
        kind = self._engines[name]
        return kind.is_installed() and kind.unsuited(self._artifact) is None and kind.obstacle() is None

    def _is_unsuited(self, rung: _Rung) -> bool:
        return rung.engine != AUTO and self._engines[rung.engine].unsuited(self._artifact) is not None

    def _opened(self, rung: _Rung) -> Engine:
        if rung.engine != AUTO:
            return self._try(rung.engine, rung.provider)
        if (both := clash(LAST)) is not None:  # else it would only be one engine that is out
            raise both
        choice = choose(
            self._artifact,
            {name: kind for name, kind in self._engines.items() if name not in self._for_gpu},
            threads=self._threads,
            provider=rung.provider or "cpu",
            strict=self._strict,
            known_only=self._is_running,
        )
        opened = self._try(choice.engine, rung.provider)
        opened.choice = choice
        return opened

    def _try(self, name: str, provider: Provider | None) -> Engine:
        self._latest = name
        self._tried.add((name, provider or self._engines[name].accepts[0]))
        return self._opening(name, provider)
