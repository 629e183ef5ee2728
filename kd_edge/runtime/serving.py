"""The recogniser of a stream: loaded, its signature checked, and moved to a better engine once its plan is built."""

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
"""Recognisers passed in by the caller that an open stream uses: each in one stream only."""
_lending = threading.Lock()


class Serving:
    """A stream's model while the stream runs.

    Args:
        model: Artifact, or a loaded recogniser, which remains the caller's.
        options: Options of the stream.
        shared: Settings of its camera files.
        cameras: Number of cameras that share the model.

    Attributes:
        recognizer: The recogniser in use; always the same object, whatever its engine.

    Raises:
        ArtifactError: The model cannot be loaded, or is not signed with a key that all ``trust`` settings accept.
        ConfigError: A trusted key is invalid, or another open stream uses this recogniser.
        MissingExtraError: ``cryptography``, which checks signatures, is not installed.
    """

    def __init__(
        self, model: str | Path | Artifact | Recognizer, options: StreamOptions, shared: SharedConfig, cameras: int
    ) -> None:
        self._options, self._shared, self._cameras = options, shared, cameras
        self._model = None if isinstance(model, Recognizer) else model
        self._upgrade: Upgrade | None = None
        self._degraded = ""  # the reason logged last
        self.recognizer = _borrowed(model) if isinstance(model, Recognizer) else self._loaded(model, options.engine)
        try:
            self._check_trusted()
        except KdEdgeError:
            self.close()
            raise
        self.tell_degraded()

    def close(self) -> None:
        """Close the recogniser if it was loaded here, or return it to the caller."""
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
        is_better = engine != options.engine  # an upgrade must be exactly that engine and pass its self-test
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
        """Log once when the engine makes labels degraded."""
        if self.recognizer.degraded_reason not in ("", self._degraded):
            log.warning("labels are degraded: %s", printable(self.recognizer.degraded_reason))
        self._degraded = self.recognizer.degraded_reason

    def begin_upgrade(self, opened: ExitStack) -> None:
        """With ``auto``: build the plan of a better engine in the background.

        Args:
            opened: Cancels the build when the stream ends.
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
        """Load the model on a better engine whose plan has been built."""
        better = engine_name(engine)
        if self._model is None or not ENGINES[better].is_ready(load_artifact(path)):
            raise ArtifactError(
                "the build has left no plan", "a plan in the cache", "kd-edge export ARTIFACT --tensorrt"
            )
        return self._loaded(self._model, better)

    def take_upgrade(self) -> None:
        """Switch to the better engine once it is ready, or log why it never will be; called between two frames."""
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
            except BaseException:  # this recogniser was closed: nobody else would close the other
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
                "leave the other stream first, load a recogniser for each, or give one stream both cameras",
            )
        _lent.add(recognizer)
    return recognizer
