from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.study.classical import CnnLstmConfig, ComparatorConfig, CrcConfig, TstddsConfig, comparator_model

BASE: dict[str, Any] = {"data": {"kind": "utd_mhad"}, "split": "odd_even"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda": 1}, "lambda: unknown key"),
        ({"fusion": "feature"}, "fusion: input should be 'features' or 'decisions', got 'feature'"),
        ({"regularisation": []}, "regularisation"),
        ({"regularisation": [0.0]}, "regularisation.0: input should be greater than 0, got 0.0"),
        ({"depth": "", "sensors": []}, "depth is empty and sensors too"),
        ({"motion": {"crop_share": 1.0}}, "motion.crop_share: input should be less than 1, got 1.0"),
        ({"motion": {"views": ["left"]}}, "motion.views.0"),
        ({"depth_weight": 1.5}, "depth_weight: input should be less than 1, got 1.5"),
        ({"modality": "depth"}, "modality: unknown key"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipes.validate(BASE | changes, CrcConfig, "comparator")
    assert message in str(error.value)


@pytest.mark.parametrize(("kind", "model"), [("tstdds", TstddsConfig), ("crc", CrcConfig), ("cnn_lstm", CnnLstmConfig)])
def test_the_kind_decides_the_settings(kind: str, model: type) -> None:
    values = BASE | {"kind": kind} | ({"modality": "depth"} if kind == "tstdds" else {})
    config = TypeAdapter(ComparatorConfig).validate_python(values)
    assert type(config) is model
    assert comparator_model(kind, "row 'a'") is model


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match=r"row 'a': comparator.kind: unknown 'crr' \(did you mean 'crc'\?\)"):
        comparator_model("crr", "row 'a'")


def test_the_papers_values_are_the_defaults() -> None:
    config = CrcConfig.model_validate(BASE)
    assert (config.windows, config.depth_weight, config.fusion) == (6, 0.5, "features")
    assert config.modality == "depth+accelerometer+gyroscope"
    assert config.motion.views == ("front", "side", "top")


@pytest.mark.parametrize("model", [CrcConfig, CnnLstmConfig])
def test_a_config_survives_its_toml_and_has_a_fingerprint(tmp_path: Path, model: type[CrcConfig]) -> None:
    config = model.model_validate(BASE | {"sensors": [], "motion": {"views": ["front"]}, "threads": 1})
    file = tmp_path / "comparator.toml"
    file.write_text(recipes.to_toml(config), encoding="utf-8")
    assert recipes.load("train", str(file), model) == config
    elsewhere = config.model_copy(update={"name": "other"})
    assert elsewhere.fingerprint() == config.fingerprint()
    assert config.model_copy(update={"seed": 1}).fingerprint() != config.fingerprint()
