"""Which engine is tried when, what a failure does, and how it is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from kd_edge.artifact import Artifact
from kd_edge.engines import Engine, base, choice
from kd_edge.engines.ladder import Ladder
from kd_edge.engines.onnxruntime import OnnxRuntimeEngine
from kd_edge.errors import ArtifactError, ConfigError, EngineError, MissingExtraError


class Cpu(OnnxRuntimeEngine):
    """ONNX Runtime, which can be told to fail."""

    key = "onnxruntime"
    installed, ready, fault, wrong = True, True, None, None
    accepts = ("cpu",)

    @classmethod
    def is_installed(cls) -> bool:
        return cls.installed

    @classmethod
    def is_ready(cls, artifact: Artifact) -> bool:
        return cls.ready

    @classmethod
    def unsuited(cls, artifact: Artifact) -> str | None:
        return cls.wrong

    def _load(self, artifact, threads, provider):
        if self.fault is not None:
            raise self.fault
        tensors = super()._load(artifact, threads, "cpu")
        self.name = f"{self.key} 1.0"
        return tensors


class Gpu(Cpu):
    accepts = ("cuda",)


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Cpu]]:
    """A table of engines on a machine with a GPU; ``swift`` has been measured as the fastest on the CPU."""
    monkeypatch.setattr(base, "find_gpu", lambda: None)
    monkeypatch.setattr(
        "kd_edge.engines.ladder.choose",
        lambda artifact, engines, **asked: choice.Choice(
            "swift" if "swift" in engines else "onnxruntime", "", {}, {}, kept=True
        ),
    )
    return {
        "onnxruntime": type("Last", (Cpu,), {}),
        "swift": type("Swift", (Cpu,), {"key": "swift"}),
        "best": type("Best", (Gpu,), {"key": "best"}),
        "good": type("Good", (Gpu,), {"key": "good"}),
    }


@pytest.fixture
def made(step: Artifact, kinds: dict[str, type[Cpu]]) -> Callable[..., Ladder]:
    def opening(strict: bool, name: str, provider: object) -> Engine:
        return kinds[name](step, strict=strict)

    def made(**options: object) -> Ladder:
        return Ladder(step, kinds, partial(opening, bool(options.get("strict"))), **options)

    return made


def climb_down(ladder: Ladder) -> list[str]:
    """Keys of all engines, each of which fails."""
    keys, engine = [], ladder.open()
    while engine is not None:
        keys.append(engine.key)
        failed, engine = engine, ladder.step_down("broken")
        if engine is not None:
            with pytest.raises(EngineError, match="closed"):
                failed.bind(1)
    ladder.engine.close()
    return keys


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, ["best", "good", "swift", "onnxruntime"]),
        ({"provider": "cpu"}, ["swift", "onnxruntime"]),
        ({"engine": "best"}, ["best", "good", "swift", "onnxruntime"]),
        ({"engine": "good"}, ["good", "swift", "onnxruntime"]),
        ({"engine": "swift"}, ["swift", "onnxruntime"]),
        ({"engine": "onnxruntime"}, ["onnxruntime"]),
        ({"strict": True}, ["best"]),
        ({"engine": "swift", "strict": True}, ["swift"]),
    ],
)
def test_from_the_best_down_to_onnxruntime(made, options: dict[str, object], keys: list[str]) -> None:
    assert climb_down(made(**options)) == keys


def test_what_is_not_ready_is_passed_over_without_a_word(made, kinds, monkeypatch) -> None:
    kinds["best"].ready = False
    ladder = made()
    with ladder.open() as engine:
        assert (engine.key, engine.fallback_reason, ladder.awaited()) == ("good", None, "best")
    for state in ({"installed": False}, {"wrong": "it is of another kind"}):
        for name, value in state.items():
            setattr(kinds["best"], name, value)
        ladder = made()
        with ladder.open() as engine:
            assert (engine.key, engine.fallback_reason, ladder.awaited()) == ("good", None, None)
        kinds["best"].installed, kinds["best"].wrong = True, None

    def none() -> None:
        raise EngineError("no CUDA driver", "one", "nvidia-smi")

    monkeypatch.setattr(base, "find_gpu", none)
    ladder = made()
    with ladder.open() as engine:
        assert (engine.key, engine.fallback_reason, ladder.awaited()) == ("swift", None, None)


def test_nothing_is_awaited_where_the_processor_or_an_engine_was_asked_for(made, kinds) -> None:
    kinds["best"].ready = False
    for options in ({"provider": "cpu"}, {"engine": "good"}, {"engine": "swift"}):
        ladder = made(**options)
        with ladder.open():
            assert ladder.awaited() is None


def test_what_was_asked_for_need_not_be_ready(made, kinds) -> None:
    kinds["best"].ready = False
    with made(engine="best").open() as engine:
        assert engine.key == "best"


def test_one_that_cannot_be_opened_is_told_and_the_next_one_goes_on(made, kinds) -> None:
    kinds["best"].fault = ArtifactError("no memory", "more", "free some")
    for engine in ("auto", "best"):
        ladder = made(engine=engine)
        with ladder.open() as opened:
            assert opened.key == "good"
            assert opened.fallback_reason == "best failed: no memory; good 1.0 takes over"
            assert ladder.awaited() is None  # it was tried
        with pytest.raises(ArtifactError, match="no memory"):
            made(engine=engine, strict=True).open()
    ladder = made()
    ladder.open()
    with ladder.step_down("lost device") as opened:
        assert opened.fallback_reason == "best failed: no memory; good failed: lost device; swift 1.0 takes over"


def test_mistakes_of_who_asks_are_errors_and_a_missing_package_of_a_rung_is_not(made, kinds) -> None:
    kinds["best"].fault = MissingExtraError("module 'best' is not installed", "the extra", "pip install")
    with pytest.raises(MissingExtraError):
        made(engine="best").open()
    with made().open() as engine:
        assert engine.key == "good"
        assert engine.fallback_reason == "best failed: module 'best' is not installed; good 1.0 takes over"  # was ready
    with pytest.raises(MissingExtraError):
        made(strict=True).open()
    kinds["best"].fault = ConfigError("best with provider npu", "another", "choose one")
    with pytest.raises(ConfigError):
        made(engine="best", provider="npu").open()
    kinds["best"].fault, kinds["best"].wrong = None, "quantised for CPUs"
    with pytest.raises(ArtifactError, match="cannot run on best: quantised for CPUs"):
        made(engine="best").open()


def test_where_all_fail_the_last_one_says_why(made, kinds) -> None:
    for number, kind in enumerate(kinds.values()):
        kind.fault = ArtifactError(f"fault {number}", "none", "none")
    with pytest.raises(ArtifactError, match="fault 0"):
        made().open()
    kinds["swift"].fault = None
    ladder = made()
    with ladder.open() as engine:
        assert engine.key == "swift"
        assert ladder.step_down("broken") is None  # and it stays open
        engine.bind(1).run()
