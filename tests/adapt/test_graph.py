from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from kd_edge import artifact as artifacts
from kd_edge.adapt.gate import Gate
from kd_edge.adapt.graph import graph_of, with_class
from kd_edge.artifact import Artifact
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError
from kd_edge.metrics import softmax
from tests.engines.conftest import STATES, manifest, step_model
from tests.fuzz.mutate import mutated_bytes

GATE = Gate(np.array([1.0, -2.0], dtype=np.float32), 0.5)


def written(path: Path, proto: onnx.ModelProto, **facts: object) -> Artifact:
    artifacts.write(proto.SerializeToString(), manifest(**facts), None, path)
    return artifacts.load(path)


def added(parent: Artifact, path: Path, label: str = "c", gate: Gate = GATE) -> Artifact:
    known = parent.manifest
    facts = {
        "label": label, "parent_sha256": known.sha256, "clips": 1, "windows": 1, "accuracy": 1.0, "folds": "clips",
        "nearest": "a", "separation": 2.0,
    }  # fmt: skip
    changes = {"labels": (*known.labels, label), "added": (*known.added, artifacts.AddedClass.model_validate(facts))}
    artifacts.write(with_class(graph_of(parent), gate, known), known.model_copy(update=changes), None, path)
    return artifacts.load(path)


def answer(artifact: Artifact, engine: str = "onnxruntime", frames: float = 2.0) -> np.ndarray:
    with open_engine(artifact, engine=engine) as opened:  # type: ignore[arg-type]
        binding = opened.bind(1)
        binding.frame[:] = frames
        if binding.past.size:
            binding.past[:] = [[1, 0], [3, 1]]
        binding.run()
        return binding.logits[0].copy()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_row_by_hand(tmp_path: Path, engine: str) -> None:
    parent = written(tmp_path / "a.onnx", step_model(), temperature=2.0)
    # feature (2, 2), past (1, 0) and (3, 1): logits (6, 3), the window's mean (2, 1), log-odds 2 - 2 + 0.5
    assert answer(parent, engine).tolist() == [6.0, 3.0]
    logits = answer(added(parent, tmp_path / "b.onnx"), engine)
    assert logits[:2].tolist() == [6.0, 3.0]
    assert logits[2] == pytest.approx(2 * (0.5 + np.log(np.exp(3) + np.exp(1.5))), rel=1e-6)
    assert logits[2] == pytest.approx(7.4028266, rel=1e-6)


def test_a_second_row_counts_the_first_among_the_others(tmp_path: Path) -> None:
    once = added(written(tmp_path / "a.onnx", step_model()), tmp_path / "b.onnx")
    first = answer(once)
    twice = answer(added(once, tmp_path / "c.onnx", "d", Gate(np.array([0.0, 0.0], dtype=np.float32), 0.0)))
    assert np.array_equal(twice[:3], first)
    assert twice[3] == pytest.approx(np.log(np.exp(first.astype(np.float64)).sum()), rel=1e-6)


def test_the_graph_is_onnx_and_nothing_in_it_has_changed(tmp_path: Path) -> None:
    parent = written(tmp_path / "a.onnx", step_model())
    before, after = onnx.load(parent.path), onnx.load(added(parent, tmp_path / "b.onnx").path)
    onnx.checker.check_model(after, full_check=True)
    count = len(before.graph.node)
    assert list(after.graph.node[: count - 1]) == list(before.graph.node[:-1])
    last = onnx.NodeProto.FromString(before.graph.node[-1].SerializeToString())
    last.output[0] = "logits_of_2"
    assert after.graph.node[count - 1] == last
    assert list(after.graph.initializer[: len(before.graph.initializer)]) == list(before.graph.initializer)
    assert list(after.graph.input) == list(before.graph.input)
    assert [node.op_type for node in after.graph.node[count:]] == [
        "ReduceSum", "Add", "Gemm", "ReduceMax", "Sub", "Mul", "Exp", "ReduceSum", "Log", "Mul", "Add", "Add", "Concat",
    ]  # fmt: skip
    (shape,) = [output.type.tensor_type.shape for output in after.graph.output if output.name == "logits"]
    assert [axis.dim_param or axis.dim_value for axis in shape.dim] == ["batch", 3]


def test_a_window_of_one_segment_has_no_past(tmp_path: Path) -> None:
    parent = written(tmp_path / "a.onnx", step_model(1), segments=1)
    logits = answer(added(parent, tmp_path / "b.onnx"))
    # feature (2, 2): log-odds 2 - 4 + 0.5
    assert logits.tolist() == [2.0, 2.0, pytest.approx(-1.5 + 2 + np.log(2), rel=1e-6)]


def test_states_are_handed_on_as_before(tmp_path: Path) -> None:
    facts = {"states": STATES, "temporal": "tsm_causal"}
    parent = written(tmp_path / "a.onnx", step_model(states=True), **facts)
    child = added(parent, tmp_path / "b.onnx")
    with open_engine(parent) as one, open_engine(child) as other:
        bindings = one.bind(2), other.bind(2)
        for binding in bindings:
            for array in binding.inputs.values():
                array[:] = np.random.default_rng(3).random(array.shape, dtype=np.float32)
            binding.run()
        assert np.array_equal(bindings[0].states_out[0], bindings[1].states_out[0])
        assert np.array_equal(bindings[0].feature, bindings[1].feature)
        assert np.array_equal(bindings[0].logits, bindings[1].logits[:, :2])


def test_no_exponential_overflows(tmp_path: Path) -> None:
    child = added(written(tmp_path / "a.onnx", step_model()), tmp_path / "b.onnx", gate=Gate(GATE.weights * 0, -1.0))
    logits = answer(child, frames=2e4)
    assert logits[2] == pytest.approx(20003 + np.log1p(np.exp(-3)), rel=1e-6)  # 20004 and 20001, less 1


def test_an_old_operator_set_is_refused(tmp_path: Path) -> None:
    proto = step_model()
    proto.opset_import[0].version = 17
    parent = written(tmp_path / "a.onnx", proto)
    with pytest.raises(ArtifactError, match=r"operator set 17.*18 or later"):
        graph_of(parent)


def reading(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.graph.node.append(helper.make_node("Identity", ["logits"], ["copy"]))
    return proto


def without(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.graph.node[-1]
    return proto


@pytest.mark.parametrize(("change", "why"), [(reading, "reads its logits"), (without, "0 nodes write its logits")])
def test_a_graph_that_no_export_writes_is_refused(change, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        with_class(change(step_model()).SerializeToString(), GATE, manifest())


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_graph_that_breaks_off_is_refused(cut: int) -> None:
    graph = step_model().SerializeToString()
    with pytest.raises(ValueError, match=r"ends at|not a varint|has not one graph"):
        with_class(graph[: len(graph) - cut], GATE, manifest())


def test_a_graph_with_bytes_changed_is_refused_or_extended() -> None:
    graph, outcomes = step_model().SerializeToString(), Counter[str]()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        try:
            with_class(mutated_bytes(rng, graph), GATE, manifest())
        except ValueError:
            outcomes["refused"] += 1
        else:
            outcomes["extended"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["extended"] > 5


def test_logits_without_axes_are_refused() -> None:
    proto = step_model()
    (logits,) = [output for output in proto.graph.output if output.name == "logits"]
    del logits.type.tensor_type.shape.dim[:]
    with pytest.raises(ValueError, match="no field 1"):
        with_class(proto.SerializeToString(), GATE, manifest())


def test_a_prediction_changes_only_where_the_new_class_wins(tmp_path: Path) -> None:
    """Whatever row, inputs and temperature: old probabilities keep their ratios, the new one is sigmoid(g)."""
    rng = np.random.default_rng(5)
    for case, temperature in enumerate((0.3, 1.0, 4.0)):
        parent = written(tmp_path / "a.onnx", step_model(), temperature=temperature)
        gate = Gate(rng.normal(size=2).astype(np.float32), float(rng.normal()))
        child = added(parent, tmp_path / f"{case}.onnx", gate=gate)
        with open_engine(parent) as one, open_engine(child) as other:
            shapes = one.tensors.inputs
            inputs = {n: rng.normal(scale=3, size=(200, *s)).astype(np.float32) for n, s in shapes.items()}
            before, after = one.infer(inputs)["logits"], other.infer(inputs)
        assert np.array_equal(after["logits"][:, :2], before)
        window = (inputs["past"].sum(axis=1) + after["feature"]) / parent.manifest.segments
        odds, shares = gate(window), softmax(after["logits"], temperature)
        np.testing.assert_allclose(shares[:, 2], 1 / (1 + np.exp(-odds)), atol=2e-5)
        rest = shares[:, :2] / shares[:, :2].sum(axis=1, keepdims=True)
        known = shares[:, 2] < 0.999
        np.testing.assert_allclose(rest[known], softmax(before, temperature)[known], atol=2e-4)
        answers = after["logits"].argmax(axis=1)
        assert np.array_equal(answers[answers != 2], before.argmax(axis=1)[answers != 2])
        assert 0 < (answers == 2).sum() < 200
