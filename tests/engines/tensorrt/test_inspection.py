"""Which numbers layers compute with, by what inspectors and networks say."""

from __future__ import annotations

import json

import pytest

from kd_edge.engines.tensorrt.inspection import Shares, by_engine


def described(*layers: tuple[list[str], list[str]]) -> str:
    return json.dumps(
        {
            "Layers": [
                {
                    "Name": f"layer {number}",
                    "Inputs": [{"Name": "x", "Format/Datatype": text} for text in inputs],
                    "Outputs": [{"Name": "y", "Format/Datatype": text} for text in outputs],
                }
                for number, (inputs, outputs) in enumerate(layers)
            ]
        }
    )


@pytest.mark.parametrize(
    ("layer", "number"),
    [
        ((["Row major linear FP32"], ["Row major linear FP32"]), "float32"),
        ((["Float"], ["Half"]), "half"),
        ((["Channel major FP16 format where channel % 8 == 0"], ["Half"]), "half"),
        ((["BFloat16"], ["BFloat16"]), "half"),
        ((["Thirty-two wide channel vectorized row major Int8 format"], ["Half"]), "int8"),
        ((["Int8"], ["Int8"]), "int8"),
        ((["Int32"], ["Int64"]), "other"),
        (([], []), "other"),
    ],
)
def test_a_layer_computes_with_the_narrowest_it_reads_or_writes(
    layer: tuple[list[str], list[str]], number: str
) -> None:
    shares = by_engine(described(layer, (["Float"], ["Float"])))
    assert shares is not None
    expected = {"float32": 1, "half": 0, "int8": 0, "other": 0}
    expected[number] += 1
    assert shares.model_dump() == {"told_by": "engine", "layers": 2, **expected}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"Layers": []}', '{"Layers": ["a layer\'s name"]}', described(([""], [""]))],
)
def test_an_inspector_that_tells_nothing_is_not_believed(text: str) -> None:
    assert by_engine(text) is None


def test_shares_in_words() -> None:
    shares = Shares(told_by="engine", layers=8, float32=1, half=2, int8=1, other=0)
    assert [shares.share(number) for number in ("int8", "half", "float32", "other")] == [0.25, 0.5, 0.25, 0]
    assert str(shares) == "25% int8, 50% half, 25% float32 of 8 layers (from the engine)"
    nothing = Shares(told_by="network", layers=0, float32=0, half=0, int8=0, other=0)
    assert (nothing.share("half"), str(nothing)) == (0, "nothing counted of 0 layers (from the network)")
