from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.study.classical import TstddsConfig


def values(**changes: Any) -> dict[str, Any]:
    return {"data": {"kind": "synthetic"}, "split": "subjects", "modality": "nir"} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_pix": 64}, "frame_pix: unknown key (did you mean 'frame_px'?)"),
        ({"kind": "tsn"}, "kind: input should be 'tstdds'"),
        ({"frame_px": 8}, "frame_px: input should be greater than or equal to 16, got 8"),
        ({"window": {"kind": "percentil"}}, "window.kind: unknown 'percentil' (did you mean 'percentile'?)"),
        ({"streams": {"backbone": "vgg16"}}, "streams.backbone"),
        ({"streams": {"layers": [2, 5]}}, "streams.layers.1: input should be less than or equal to 4, got 5"),
        ({"streams": {"layers": [3, 3]}}, "streams: layers (3, 3) must increase"),
        ({"streams": {"batch_size": 1}}, "streams.batch_size: input should be greater than or equal to 2, got 1"),
        (
            {"tracks": {"minimum_spread": 0.3}},
            "tracks: minimum_spread (0.3) must be below maximum_spread (0.2)",
        ),
        ({"coding": {"pooling": "mean"}}, "coding.pooling"),
        ({"coding": {"neighbours": 0}}, "coding.neighbours"),
        ({"c": 0.0}, "c: input should be greater than 0, got 0.0"),
        ({"c_choices": []}, "c_choices"),
        ({"seed": -1}, "seed"),
        ({"name": "../up"}, "name"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipes.validate(values(**changes), TstddsConfig, "comparator")
    assert message in str(error.value)


@pytest.mark.parametrize("missing", ["data", "split", "modality"])
def test_what_has_no_default_must_be_given(missing: str) -> None:
    given = values()
    del given[missing]
    with pytest.raises(ConfigError, match=f"{missing}: missing"):
        recipes.validate(given, TstddsConfig, "comparator")


def test_the_letter_s_values_are_the_defaults() -> None:
    config = TstddsConfig.model_validate(values())
    assert (config.streams.flow_fields, config.tracks.frames, config.coding.neighbours) == (10, 15, 5)
    assert (config.kind, config.c, config.coding.codewords, config.coding.dimensions) == ("tstdds", 1.0, 1024, 64)


def test_a_config_survives_its_toml(tmp_path: Path) -> None:
    config = TstddsConfig.model_validate(
        values(
            data={"kind": "utd_mhad", "root": "recordings"},
            validation_subjects=["7"],
            window={"kind": "fixed", "low": 1500, "high": 3500},
            streams={"backbone": "resnet10_thin", "layers": [1, 4]},
            threads=1,
        )
    )
    file = tmp_path / "tstdds.toml"
    file.write_text(recipes.to_toml(config), encoding="utf-8")
    assert recipes.load("train", str(file), TstddsConfig) == config


def test_the_fingerprint_is_of_what_decides_the_figures() -> None:
    def print_of(**changes: Any) -> str:
        return TstddsConfig.model_validate(values(**changes)).fingerprint()

    utd = {"kind": "utd_mhad"}
    assert print_of(data=utd) == print_of(data={**utd, "root": "elsewhere"}, name="other")
    different = [{}, {"seed": 1}, {"frame_px": 64}, {"c": 2.0}, {"tracks": {"stride_px": 3}}, {"data": utd}]
    assert len({print_of(**changes) for changes in different}) == len(different)
