"""The engines that may run a model, best first: if one fails, the next takes over and reports why."""

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
"""The engine on which every export is verified."""

Engines = Mapping[str, type[Engine]]
Opening = Callable[[str, Provider | None], Engine]
"""Opens an engine by name, on a provider."""


class _Rung(NamedTuple):
    """An engine to try.

    Attributes:
        engine: Its name; ``AUTO`` is the fastest one that runs on ``provider``.
        provider: Device to run on; None is the engine's own.
        is_asked: Whether the user named it, so that it must not be skipped silently.
        is_ready: Whether it was found to be ready.
    """

    engine: str
    provider: Provider | None
    is_asked: bool = False
    is_ready: bool = False


class Ladder:
    """The engines of one model: those on a GPU, best first, then the fastest on the CPU, then ONNX Runtime.

    An engine requested by name is the first rung; better ones are left out. ``auto`` begins at the best one that is
    *ready*: installed, with a GPU to run on and nothing left to build.

    Args:
        artifact: An artifact verified by ``artifact.load``.
        engines: The table of ``kd_edge.engines``; engines for GPUs only are listed best first.
        opening: Opens one of them.
        engine: A name, or ``auto``.
        threads: Threads of each engine.
        provider: Device to run on; None is an engine's own.
        strict: Raise an error instead of stepping down.

    Attributes:
        engine: The engine in use.
        faults: Why engines failed, by name.
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
            ConfigError: The engine does not support the provider.
            ArtifactError: No engine can be opened; with ``strict``, a better one cannot be opened.
            MissingExtraError: The requested engine is not installed.
        """
        fault: KdEdgeError | None = None
        for rung in self._rungs:
            try:
                opened = self._opened(rung)
            except (MissingExtraError, ConfigError) as error:
                if rung.is_asked or (rung.is_ready and self._strict):
                    raise
                if rung.is_ready:  # its plan exists, so something else is missing: report it
                    fault = error
                    self.faults[rung.engine] = error.found
                continue  # an engine that was not requested may be missing
            except KdEdgeError as error:
                if self._strict or (rung.is_asked and self._is_unsuited(rung)):
                    raise
                fault = error
                self.faults[self._latest or rung.engine] = error.found
                continue
            self.engine, self._is_running = opened, True
            if self.faults:
                reasons = [] if opened.fallback_reason is None else [opened.fallback_reason]
                reasons += [f"{name} failed: {why}" for name, why in self.faults.items()]
                opened.fallback_reason = printable(f"{'; '.join(reasons)}; {opened.name} takes over")
            return opened
        raise fault or ArtifactError(f"no engine runs {self._artifact.path}", "an engine that does", "kd-edge doctor")

    def step_down(self, why: str) -> Engine | None:
        """Replace the failed engine by the next one that can be opened.

        Args:
            why: The reason of the failure.

        Returns:
            The next engine; None if there is none or with ``strict``. The failed engine then stays open.
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
        """A better engine that ``auto`` would use if its plan were built; None if there is none."""
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
        if (both := clash(LAST)) is not None:  # otherwise it would look like one missing engine
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
