"""Names and shapes of each kind of graph, as a manifest promises them."""

from __future__ import annotations

from kd_edge.artifact import StateSpec
from kd_edge.engines.tensors import state_names, tensors
from kd_edge.preprocess import Preprocess

from .conftest import manifest

SPEC = manifest(
    preprocess=Preprocess(resize_px=20, input_px=16, replicate=3), segments=4, feature_size=5, labels=("a", "b", "c")
)
STATES = (StateSpec(name="layer1", shape=(4, 8, 8)), StateSpec(name="layer2", shape=(2, 4, 4)))


def test_of_a_step() -> None:
    inputs, outputs = tensors(SPEC)
    assert list(inputs.items()) == [("frame", (3, 16, 16)), ("past", (3, 5))]
    assert list(outputs.items()) == [("feature", (5,)), ("logits", (3,))]


def test_of_a_step_with_states() -> None:
    inputs, outputs = tensors(SPEC.model_copy(update={"states": STATES}))
    assert list(inputs.items())[2:] == [("state_in_0", (4, 8, 8)), ("state_in_1", (2, 4, 4))]
    assert list(outputs.items())[2:] == [("state_out_0", (4, 8, 8)), ("state_out_1", (2, 4, 4))]
    assert state_names(0) == ([], [])


def test_of_a_clip_model_and_of_a_backbone() -> None:
    assert tensors(SPEC.model_copy(update={"graph": "clip"})) == ({"clip": (4, 3, 16, 16)}, {"logits": (3,)})
    assert tensors(SPEC.model_copy(update={"graph": "backbone"})) == ({"frame": (3, 16, 16)}, {"feature": (5,)})
