"""The one door: names, what is not installed, options that make no sense."""

from __future__ import annotations

import sys
from typing import get_args

import pytest

from kd_edge import engines
from kd_edge.artifact import Artifact
from kd_edge.engines import ENGINES, EngineName, open_engine
from kd_edge.errors import ConfigError, MissingExtraError


def test_the_names_are_those_of_the_table() -> None:
    assert get_args(EngineName) == ("auto", *ENGINES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "onnxruntim"},
            r"engine 'onnxruntim' \(did you mean 'onnxruntime'\?\)\. Expected one of auto, onnx",
        ),
        ({"provider": "metal"}, r"provider 'metal'\. Expected one of cpu, cuda"),
        ({"threads": 0}, r"0 threads\. Expected 1 to 256"),
        ({"threads": 100_000}, r"100000 threads\. Expected 1 to 256"),
        ({"threads": 1.5}, r"1\.5 threads"),
        ({"threads": "2"}, r"'2' threads"),
        ({"engine": None}, r"engine 'None'"),
    ],
)
def test_options_that_do_not_exist_are_refused(step: Artifact, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_engine(step, **options)


@pytest.mark.parametrize("engine", get_args(EngineName))
@pytest.mark.parametrize(("provider", "extra"), [("cpu", "[cpu]"), ("cuda", "[gpu]")])
def test_an_engine_that_is_not_installed_names_its_extra(
    step: Artifact, monkeypatch: pytest.MonkeyPatch, engine: EngineName, provider: str, extra: str
) -> None:
    for kind in ENGINES.values():
        monkeypatch.setitem(sys.modules, kind.library, None)
        assert not kind.is_installed()
    with pytest.raises(MissingExtraError) as caught:
        open_engine(step, engine=engine, provider=provider)
    assert extra in str(caught.value)


def test_auto_takes_the_first_that_is_installed(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(ENGINES["onnxruntime"]):
        library = "no_such_library"

    monkeypatch.setattr(engines, "ENGINES", {"other": Absent, **ENGINES})
    with open_engine(step) as engine:
        assert type(engine) is ENGINES["onnxruntime"]
