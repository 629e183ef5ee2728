"""The recogniser that serves a stream: loaded and trusted, and replaced once a better engine's plan is built."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from kd_edge.artifact import Artifact, Trust
from kd_edge.artifact import load as load_artifact
from kd_edge.engines import ENGINES, EngineName, engine_name
from kd_edge.errors import ArtifactError, ConfigError, KdEdgeError, printable
from kd_edge.runtime.cameras.config import SharedConfig
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.recognizer import MAX_SOURCES, Recognizer

if TYPE_CHECKING:
    from kd_edge.runtime.upgrade import Upgrade

log = logging.getLogger("kd_edge.runtime")

_lent: WeakSet[Recognizer] = WeakSet()
"""The recognisers of others that serve an open stream: each one only."""
_lending = threading.Lock()


class Serving:
    """A stream's model while the stream runs.

    Args:
        model: Artifact, or a recogniser that is loaded already: then it stays its owner's.
        options: What the stream was asked for.
        shared: What its camera files say.
        cameras: How many cameras share the model.

    Attributes:
        recognizer: The recogniser in use; one and the same object, whatever engine it is on.

    Raises:
        ArtifactError: The model cannot be loaded, or is signed with no key that all trust.
        ConfigError: What is to be trusted is no key, or another open stream uses this recogniser.
        MissingExtraError: ``cryptography``, which checks signatures, is not installed.
    """

    def __init__(
        self, model: str | Path | Artifact | Recognizer, options: StreamOptions, shared: SharedConfig, cameras: int
    ) -> None:
        self._options, self._shared, self._cameras = options, shared, cameras
        self._model = None if isinstance(model, Recognizer) else model
        self._upgrade: Upgrade | None = None
        self._degraded = ""  # the reason that was told last
        self.recognizer = _borrowed(model) if isinstance(model, Recognizer) else self._loaded(model, options.engine)
        try:
            self._check_trusted()
        except KdEdgeError:
            self.close()
            raise
        self.tell_degraded()

    def close(self) -> None:
        """Close the recogniser that was loaded here, or give it back."""
        if self._model is not None:
            self.recognizer.close()
        with _lending:
            _lent.discard(self.recognizer)

    def _check_trusted(self) -> None:
        for trust in (self._options.trust, *self._shared.trusts):
            if trust is not None and not Trust(trust).knows(self.recognizer.signed_by):
                raise ArtifactError(
                    f"'{self.recognizer.manifest.name}' was not loaded with a signature that {trust} trusts",
                    "a model signed with a key that all trust",
                    "load it with trust=, or correct trust in the camera files",
                )

    def _loaded(self, model: str | Path | Artifact, engine: EngineName) -> Recognizer:
        options, shared = self._options, self._shared
        is_better = engine != options.engine  # than the one that serves: it is itself and right, or nothing
        return Recognizer.load(
            model,
            engine=engine,
            threads=next(n for n in (options.threads, shared.threads, 1) if n is not None),
            provider=options.provider,
            strict=options.strict or is_better,
            cuda_binding=options.cuda_binding,
            self_test="raise" if is_better and options.self_test == "accept" else options.self_test,
            valid_ms=options.valid_ms,
            max_sources=max(MAX_SOURCES, self._cameras),
            smooth_ms=options.smooth_ms,
            trust=next((t for t in (options.trust, *shared.trusts) if t is not None), None),
        )

    def tell_degraded(self) -> None:
        """Say it once when labels become degraded by their engine."""
        if self.recognizer.degraded_reason not in ("", self._degraded):
            log.warning("labels are degraded: %s", printable(self.recognizer.degraded_reason))
        self._degraded = self.recognizer.degraded_reason

    def begin_upgrade(self, opened: ExitStack) -> None:
        """With ``auto``: have the plan of a better engine built while this one serves.

        Args:
            opened: Ends the building with the stream.
        """
        engine = self.recognizer.awaited_engine
        if self._options.engine != "auto" or self._model is None or engine is None:
            return
        from kd_edge.runtime.upgrade import Upgrade, build_command  # most streams build nothing

        log.warning("engine %s serves while %s is built beside it", self.recognizer.engine.name, engine)
        path = self._model.path if isinstance(self._model, Artifact) else Path(self._model)
        self._upgrade = Upgrade(engine, build_command(engine, str(path)), partial(self._upgraded, path, engine))
        opened.callback(self._upgrade.close)

    def _upgraded(self, path: Path, engine: str) -> Recognizer:
        """The model on a better engine, whose plan was built: not again in here, beside the frames."""
        better = engine_name(engine)
        if self._model is None or not ENGINES[better].is_ready(load_artifact(path)):
            raise ArtifactError("its build has left no plan", "one that is kept", "kd-edge export ARTIFACT --tensorrt")
        return self._loaded(self._model, better)

    def take_upgrade(self) -> None:
        """Between two frames: go on with the better engine once it is ready, or say why it never will be."""
        if self._upgrade is None:
            return
        if self._upgrade.fault:
            log.warning(
                "engine %s goes on: no %s: %s",
                self.recognizer.engine.name,
                self._upgrade.engine,
                printable(self._upgrade.fault),
            )
            self._upgrade = None
        elif (better := self._upgrade.poll()) is not None:
            before = self.recognizer.engine.name
            try:
                self.recognizer.adopt(better)
            except BaseException:  # closed meanwhile: nobody else would close it
                better.close()
                raise
            log.warning("engine %s goes on in the place of %s", self.recognizer.engine.name, before)
            self._upgrade = None


def _borrowed(recognizer: Recognizer) -> Recognizer:
    with _lending:
        if recognizer in _lent:
            raise ConfigError(
                f"a recogniser of '{recognizer.manifest.name}' that another open stream uses",
                "one stream at a time for a recogniser",
                "leave the other stream before, load a recogniser for each, or give one stream both cameras",
            )
        _lent.add(recognizer)
    return recognizer
