"""Precisions on graphs small enough to work out by hand."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from kd_edge.errors import ConfigError, ExportError
from kd_edge.export.onnx import to_onnx
from kd_edge.export.precision import Converted, convert, observe
from kd_edge.export.precision.activations import BINS, magnitude, on_grid
from kd_edge.export.precision.correction import correct_features, fit_line
from kd_edge.export.precision.fp16 import to_half, unfit_for_half
from kd_edge.export.profile import ExportProfile
from kd_edge.models import ModelConfig, build_model
from kd_edge.types import Float32

FP16 = ExportProfile(name="fp16", precision="fp16")
INT8 = ExportProfile(name="int8", precision="int8", range_method="extremes")
TENSORRT = ExportProfile(name="int8-tensorrt", precision="int8-tensorrt", range_method="extremes")


def graph(
    nodes: Sequence[onnx.NodeProto], weights: Mapping[str, object], channels: int, opset: int = 20
) -> onnx.ModelProto:
    """x (B, channels, 1, 2) -> y."""
    initializers = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in weights.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, 1, 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, None, None])]
    made = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )
    onnx.checker.check_model(made)
    return made


def conv(name: str, inputs: Sequence[str], output: str) -> onnx.NodeProto:
    return helper.make_node("Conv", inputs, [output], name)


def feed(*values: float) -> dict[str, Float32]:
    return {"x": np.array(values, np.float32).reshape(1, -1, 1, 2)}


def run(proto: onnx.ModelProto, inputs: Mapping[str, Float32]) -> list[Float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {initializer.name: numpy_helper.to_array(initializer) for initializer in proto.graph.initializer}


def parameters(proto: onnx.ModelProto, operator: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scale and zero point by the tensor that a QuantizeLinear or DequantizeLinear reads."""
    known = constants(proto)
    return {
        node.input[0]: (known[node.input[1]], known[node.input[2]])
        for node in proto.graph.node
        if node.op_type == operator
    }


ONE = graph(
    [
        conv("backbone.conv/Conv", ["x", "w", "b"], "c"),
        helper.make_node("Relu", ["c"], ["r"], "backbone.relu/Relu"),
        helper.make_node("Mul", ["r", "h"], ["y"], "head.scale/Mul"),
    ],
    {"w": [[[[0.5]]], [[[-2.0]]]], "b": [0.0, 0.25], "h": [[[0.3]], [[0.7]]]},
    channels=1,
)
"""Channels 0.5 x and 0.25 - 2 x, ReLU, and a head that multiplies them by 0.3 and 0.7."""
SEEN = [feed(-1, 0), feed(3, 1)]
"""Ranges: x -1 to 3; the ReLU's output 0 to 0.25 - 2 * -1 = 2.25."""


# --------------------------------------------------------------------------------------------------- 8 bits for CPUs


def test_int8_scales_zero_points_and_weights_are_those_worked_out_by_hand() -> None:
    proto, _ = convert(ONE, INT8, SEEN)
    scales = parameters(proto, "QuantizeLinear")
    assert_allclose(scales["x"][0], 4 / 255, rtol=1e-6)
    assert (scales["x"][1].dtype, int(scales["x"][1])) == (np.uint8, 64)  # round(1 / (4 / 255)) = round(63.75)
    assert_allclose(scales["r"][0], 2.25 / 255, rtol=1e-6)
    assert (scales["r"][1].dtype, int(scales["r"][1])) == (np.uint8, 0)
    known = constants(proto)
    assert_array_equal(known["w_quantized"].ravel(), np.array([127, -127], np.int8))
    assert_allclose(known["w_scale"], [0.5 / 127, 2 / 127], rtol=1e-6)
    # 0.25 in steps of (4 / 255) * (2 / 127) = 2.470e-4: 1012.03
    assert_array_equal(known["b_quantized"], np.array([0, 1012], np.int32))


def test_int8_answers_with_the_rounding_of_8_bits() -> None:
    """x = 1: level 64 + round(63.75) = 128, that is 64 steps of 4/255: 1.00392; 0.5 x is level 56.89 -> 57."""
    [answer] = run(convert(ONE, INT8, SEEN).proto, feed(1, 1))
    assert_allclose(answer.ravel(), [0.3 * 57 * 2.25 / 255] * 2 + [0, 0], rtol=1e-5)


def test_the_feeds_are_what_calibrates_beyond_them_values_saturate() -> None:
    """x = 100 is read as the largest level, 255 - 64 = 191 steps of 4/255: 2.996; 0.5 x is level 169.78 -> 170."""
    proto = convert(ONE, INT8, SEEN).proto
    [far], [edge] = run(proto, feed(100, 100)), run(proto, feed(3, 3))
    assert_array_equal(far, edge)
    assert_allclose(far.ravel(), [0.3 * 170 * 2.25 / 255] * 2 + [0, 0], rtol=1e-5)
    [wider] = run(convert(ONE, INT8, [*SEEN, feed(100, 0)]).proto, feed(100, 100))
    assert_allclose(wider.ravel(), [15.0, 15.0, 0, 0], rtol=1e-2)


def test_the_classifier_stays_in_float32_and_says_so() -> None:
    proto, kept = convert(ONE, INT8, SEEN)
    assert kept == {"head.scale/Mul": "mean over time and classifier stay in float32"}
    assert_array_equal(constants(proto)["h"], constants(ONE)["h"])


TEMPORAL = graph(
    [conv("backbone.conv/Conv", ["x", "w"], "c"), conv("head.convolution1/Conv", ["c", "h"], "y")],
    {"w": [[[[0.5]]]], "h": [[[[0.25]]]]},
    channels=1,
)


def test_temporal_convolutions_are_quantised_for_cpus_and_not_for_tensorrt() -> None:
    proto, kept = convert(TEMPORAL, INT8, SEEN)
    assert kept == {}
    assert constants(proto)["h_quantized"].dtype == np.int8
    assert constants(convert(TEMPORAL, TENSORRT, SEEN).proto)["h"].dtype == np.float16


def test_kept_nodes_are_not_quantised() -> None:
    profile = INT8.model_copy(update={"keep_float32": ("backbone.c*",)})
    proto, kept = convert(ONE, profile, SEEN, keep=["backbone.relu/Relu"])
    assert kept["backbone.conv/Conv"] == "kept by profile 'int8'"
    assert kept["backbone.relu/Relu"] == "kept on request"
    assert_array_equal(run(proto, feed(0.1, 77))[0], run(ONE, feed(0.1, 77))[0])


def test_an_operator_without_8_bits_is_named() -> None:
    nodes = [
        conv("backbone.conv/Conv", ["x", "w"], "c"),
        helper.make_node("HardSwish", ["c"], ["y"], "backbone.act/HardSwish"),
    ]
    _, kept = convert(graph(nodes, {"w": [[[[1.0]]]]}, 1), INT8, SEEN)
    assert kept == {"backbone.act/HardSwish": "no 8-bit kernel"}


def test_nothing_is_printed_and_no_file_is_left(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = ONE.SerializeToString()
    for profile in (FP16, INT8, TENSORRT, INT8.model_copy(update={"range_method": "entropy"})):
        convert(ONE, profile, SEEN)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert ONE.SerializeToString() == before


# ----------------------------------------------------------------------------------------------- 8 bits for TensorRT

RESIDUAL = graph(
    [
        conv("backbone.first/Conv", ["x", "f"], "p"),
        conv("backbone.a/Conv", ["p", "w", "b"], "a"),
        helper.make_node("Relu", ["a"], ["r"], "backbone.relu/Relu"),
        conv("backbone.b/Conv", ["r", "v"], "c"),
        helper.make_node("Add", ["c", "p"], ["s"], "backbone.block/Add"),
        helper.make_node("Mul", ["s", "h"], ["y"], "head/Mul"),
    ],
    {"f": [[[[1.0]]]], "w": [[[[2.0]]]], "v": [[[[0.5]]]], "b": [0.0], "h": [0.1]},
    channels=1,
)
"""y = 0.1 (0.5 relu(2 x) + x)"""


def test_tensorrt_reads_signed_levels_around_zero_with_half_scales_and_no_integer_bias() -> None:
    proto, kept = convert(RESIDUAL, TENSORRT, SEEN)
    assert kept == {}
    levels = parameters(proto, "QuantizeLinear") | parameters(proto, "DequantizeLinear")
    assert {zero.dtype for _, zero in levels.values()} == {np.dtype(np.int8)}
    assert all(not zero.any() for _, zero in levels.values())
    assert {scale.dtype for scale, _ in levels.values()} == {np.dtype(np.float16)}
    assert float(parameters(proto, "QuantizeLinear")["r"][0]) == float(np.float16(6 / 127))
    assert "int32" not in {value.dtype.name for value in constants(proto).values()}
    assert constants(proto)["b"].dtype == np.float16


def test_tensorrt_quantises_both_inputs_of_a_residual_add_and_no_convolution_ahead_of_its_relu() -> None:
    proto, _ = convert(RESIDUAL, TENSORRT, SEEN)
    made_by = {output: node for node in proto.graph.node for output in node.output}
    add, relu = (next(node for node in proto.graph.node if node.op_type == kind) for kind in ("Add", "Relu"))
    assert [made_by[name].op_type for name in add.input] == ["DequantizeLinear"] * 2
    assert made_by[relu.input[0]].op_type == "Conv"


def test_tensorrt_computes_the_first_convolution_in_half_precision() -> None:
    proto, _ = convert(RESIDUAL, TENSORRT, SEEN)
    [first] = [node for node in proto.graph.node if node.name == "backbone.first/Conv"]
    assert first.input[1] == "f"
    assert constants(proto)["f"].dtype == np.float16


def test_tensorrt_graph_has_float32_inputs_and_outputs_and_reproduces() -> None:
    proto, _ = convert(RESIDUAL, TENSORRT, SEEN)
    assert [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)] == [1, 1]
    [answer], [exact] = run(proto, feed(2, -0.5)), run(RESIDUAL, feed(2, -0.5))
    assert_allclose(answer, exact, atol=0.1 * 3 * 6 / 127)


def test_tensorrt_needs_an_operator_set_with_half_scales() -> None:
    old = graph([conv("backbone.a/Conv", ["x", "w"], "y")], {"w": [[[[2.0]]]]}, 1, opset=18)
    with pytest.raises(ExportError, match=r"opset 18 in profile 'int8-tensorrt'.*opset 19 or later.*set opset = 20"):
        convert(old, TENSORRT, SEEN)
    assert isinstance(convert(old, INT8, SEEN), Converted)


# ---------------------------------------------------------------------------------------------------- half precision

OVERFLOW = graph(
    [
        conv("backbone.up/Conv", ["x", "up"], "u"),
        helper.make_node("Relu", ["u"], ["r"], "backbone.relu/Relu"),
        conv("backbone.down/Conv", ["r", "down"], "d"),
        conv("head.last/Conv", ["d", "one"], "y"),
    ],
    {"up": [[[[1024.0]]]], "down": [[[[2.0**-10]]]], "one": [[[[1.0]]]]},
    channels=1,
)
"""1024 x, ReLU, and back; 100 x 1024 = 102,400 is beyond half precision's 65,504."""
LARGE = feed(100, -1)


def test_what_overflows_on_real_frames_is_found_kept_and_reproduces() -> None:
    proto, kept = convert(OVERFLOW, FP16, [LARGE])
    why = "reaches 1.02e+05 on training frames, half precision ends at 6.55e+04"
    assert kept == dict.fromkeys(["backbone.up/Conv", "backbone.relu/Relu", "backbone.down/Conv"], why)
    assert_array_equal(run(proto, LARGE)[0].ravel(), [100.0, 0.0])
    assert constants(proto)["one"].dtype == np.float16


def test_without_keeping_them_they_overflow_wherever_half_precision_is_taken_at_its_word() -> None:
    """ONNX Runtime's CPU is no such place: it computes in float32 and takes the casts between two nodes out."""
    with np.errstate(over="ignore"):
        [overflown] = onnx.reference.ReferenceEvaluator(to_half(OVERFLOW)).run(None, LARGE)
        [kept] = onnx.reference.ReferenceEvaluator(convert(OVERFLOW, FP16, [LARGE]).proto).run(None, LARGE)
    assert math.isinf(overflown.max())
    assert_array_equal(kept.ravel(), [100.0, 0.0])


def test_kept_neighbours_hand_float32_to_one_another() -> None:
    proto, _ = convert(OVERFLOW, FP16, [LARGE])
    between = {
        name for node in proto.graph.node if node.name == "backbone.relu/Relu" for name in (*node.input, *node.output)
    }
    casts = [node for node in proto.graph.node if node.op_type == "Cast"]
    assert not between & {name for node in casts for name in (*node.input, *node.output)}


def test_a_graph_of_kept_nodes_is_the_float32_graph() -> None:
    proto = to_half(OVERFLOW, [node.name for node in OVERFLOW.graph.node])
    assert [node.op_type for node in proto.graph.node] == ["Conv", "Relu", "Conv", "Conv"]
    assert_array_equal(run(proto, feed(0.1, 0.7))[0], run(OVERFLOW, feed(0.1, 0.7))[0])


def test_frames_within_half_precision_keep_nothing_and_a_margin_of_two_is_held() -> None:
    assert convert(OVERFLOW, FP16, [feed(31, 0)]).kept == {}  # 31,744 of 65,504
    assert set(convert(OVERFLOW, FP16, [feed(33, 0)]).kept) > {"backbone.up/Conv"}  # 33,792


@pytest.mark.parametrize(
    ("weight", "why"),
    [
        (1e5, "has weights of 1e+05, half precision ends at 6.55e+04"),
        (1e-5, "has weights of at most 1e-05, half precision loses digits below 6.1e-05"),
        (1e-9, "has weights of at most 1e-09, half precision loses digits below 6.1e-05"),
        (0.1, None),
    ],
)
def test_weights_that_half_precision_cannot_hold(weight: float, why: str | None) -> None:
    found = unfit_for_half(graph([conv("n", ["x", "w"], "y")], {"w": [[[[weight]]]]}, 1), {})
    assert found == ({} if why is None else {"n": why})


def test_activations_that_half_precision_loses() -> None:
    found = unfit_for_half(graph([conv("n", ["x", "w"], "y")], {"w": [[[[1.0]]]]}, 1), {"y": (-3e-5, 1e-5)})
    assert found == {"n": "stays below 3e-05 on training frames, half precision loses digits below 6.1e-05"}


# -------------------------------------------------------------------------------------------------------- what is seen


def test_extremes_are_those_of_all_frames() -> None:
    seen = observe(ONE, INT8, SEEN)
    assert seen.extremes["x"] == (-1.0, 3.0)
    assert seen.extremes["c"] == (-5.75, 2.25)
    assert seen.ranges["r"] == (0.0, 2.25)


@pytest.mark.parametrize("profile", [FP16, INT8, TENSORRT], ids=lambda profile: profile.name)
def test_no_frame_or_one_that_is_not_finite_is_refused(profile: ExportProfile) -> None:
    with pytest.raises(ExportError, match=f"no frames to calibrate the conversion to {profile.precision} on"):
        convert(ONE, profile, [])
    with pytest.raises(ExportError, match="tensor 'x' of the float32 graph is not finite on training frames"):
        convert(ONE, profile, [feed(math.nan, 0)])


def test_a_percentile_clips_one_value_in_a_hundred_thousand() -> None:
    histogram = np.zeros(BINS)
    histogram[:1024], histogram[-1] = 1000, 5  # 5 of 1,024,005
    assert magnitude(histogram, 8.0, (-8.0, 8.0), "percentile") == pytest.approx(8.0 * 1024 / 2048, rel=2e-3)
    histogram[-1] = 50
    assert magnitude(histogram, 8.0, (-8.0, 8.0), "percentile") == 8.0


def test_entropy_gives_up_a_thin_tail_for_resolution() -> None:
    histogram = np.floor(1e6 * np.exp(-np.arange(BINS) / 64.0))  # nothing from bin 885 on
    histogram[-1] = 1
    assert 8.0 * 256 / 2048 <= magnitude(histogram, 8.0, (0.0, 8.0), "entropy") <= 8.0 * 885 / 2048
    histogram[:] = 1000
    assert magnitude(histogram, 8.0, (0.0, 8.0), "entropy") == 8.0


def test_pictures_are_never_clipped() -> None:
    pictures = [{"x": np.array([[[[0.1, value]]]], np.float32)} for value in (*np.linspace(0, 1, 50), 9.0)]
    seen = observe(ONE, INT8.model_copy(update={"range_method": "entropy"}), pictures)
    assert seen.ranges["x"] == (0.0, 9.0)


def test_a_tensor_of_zeros_has_a_range() -> None:
    for method in ("extremes", "percentile", "entropy"):
        seen = observe(ONE, INT8.model_copy(update={"range_method": method}), [feed(0, 0)])
        assert seen.ranges["x"] == (0.0, 0.0)


# ------------------------------------------------------------------------------------------------------- a real student


@pytest.fixture(scope="module")
def step() -> onnx.ModelProto:
    return to_onnx(build_model(ModelConfig(backbone="tiny"), 1, 3, 4).eval(), in_channels=1, input_px=16)


@pytest.fixture(scope="module")
def frames(step: onnx.ModelProto) -> list[dict[str, Float32]]:
    rng = np.random.default_rng(0)
    shapes = {"frame": (1, 1, 16, 16), "past": (1, 3, step.graph.input[1].type.tensor_type.shape.dim[2].dim_value)}
    return [{name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()} for _ in range(8)]


@pytest.mark.parametrize(
    ("profile", "error"), [(FP16, 2e-3), (INT8, 0.1), (TENSORRT, 0.1)], ids=lambda x: getattr(x, "name", "")
)
def test_a_student_converts_and_reproduces(
    step: onnx.ModelProto, frames: list[dict[str, Float32]], profile: ExportProfile, error: float
) -> None:
    proto, _ = convert(step, profile, frames)
    for answer, exact in zip(run(proto, frames[0]), run(step, frames[0]), strict=True):
        assert answer.dtype == np.float32
        assert np.linalg.norm(answer - exact) <= error * np.linalg.norm(exact)
    names = {node.name for node in step.graph.node if node.op_type != "Relu"}  # 8-bit levels end at zero: no ReLU
    assert names <= {node.name for node in proto.graph.node}


def test_the_head_of_an_int8_student_is_untouched_bit_for_bit(
    step: onnx.ModelProto, frames: list[dict[str, Float32]]
) -> None:
    proto, _ = convert(step, INT8, frames)
    ours, theirs = constants(proto), constants(step)
    head = [name for name in theirs if name.startswith("head.")]
    assert head
    for name in head:
        assert_array_equal(ours[name], theirs[name])
    outside = [node for node in step.graph.node if not node.name.startswith("backbone.")]
    assert [node for node in proto.graph.node if node.name in {other.name for other in outside}] == outside


# ------------------------------------------------------------------------------------- grids, squares and corrections


def test_the_commonest_value_of_a_picture_is_a_level() -> None:
    # (5.588235 + 0.294118) / 255 = 0.023068, of which 0.294118 holds 12.75: 12 levels of 0.0245098
    background = np.full(880, -0.29411766, dtype=np.float32)
    person = np.linspace(0, 5.588235, 120, dtype=np.float32)
    low, high = on_grid((-0.29411766, 5.588235), np.concatenate([background, person]))
    assert (low, high) == pytest.approx((-0.29411766, 5.95588), rel=1e-5)
    assert (high - low) / 255 * 12 == pytest.approx(0.29411766, rel=1e-6)
    assert on_grid((-0.29411766, 5.588235), person) == (-0.29411766, 5.588235)  # nothing is common: as it was seen
    assert on_grid((0.0, 2.0), np.zeros(9, dtype=np.float32)) == (0.0, 2.0)  # zero is a level of every range


def test_least_squares_weighs_rounding_against_clipping() -> None:
    histogram = np.zeros(BINS)
    histogram[:512] = 1000.0
    # covering c bins in 256 levels loses 512,000 (c / 256)^2 / 12 by rounding; the value in the last bin loses
    # (2047.5 - c)^2 by clipping. The derivative, 2 c 512,000 / 786,432 - 2 (2047.5 - c), is zero at 2047.5 / 1.65104
    histogram[-1] = 1.0
    assert magnitude(histogram, 2048.0, (0.0, 2048.0), "least_squares") == pytest.approx(1240, abs=1)
    histogram[-1] = 1000.0  # then at 2047.5 / 1.000651
    assert magnitude(histogram, 2048.0, (0.0, 2048.0), "least_squares") == pytest.approx(2046, abs=1)
    histogram[-1] = 0.0
    assert magnitude(histogram, 2048.0, (0.0, 2048.0), "least_squares") == pytest.approx(512, abs=2)


def test_a_correction_is_the_line_of_least_squares() -> None:
    found = np.array([[1.0, 5.0, 0.0], [2.0, 5.0, 1.0], [3.0, 5.0, 2.0]])
    expected = np.array([[3.0, 5.5, 0.0], [5.0, 5.5, 9.0], [7.0, 5.5, 18.0]])
    slope, shift = fit_line(found, expected)
    assert slope.tolist() == [2.0, 1.0, 2.0]  # of the last one, 9, no more than 2
    assert shift.tolist() == [-1.0 + 2.0, 0.5, 9.0 - 2.0]


def test_a_step_is_corrected_to_the_float32_features_mean() -> None:
    step = onnx.ModelProto()
    step.CopyFrom(graph([helper.make_node("Flatten", ["x"], ["y"], "backbone.flatten/Flatten")], {}, 1))
    step.graph.node[0].output[0] = step.graph.output[0].name = "feature"
    del step.graph.output[0].type.tensor_type.shape.dim[2:]
    feeds = [feed(value, value) for value in (0.5, 1.0, 1.5)]
    features = [2 * one["x"].reshape(1, 2) + 1 for one in feeds]
    made = correct_features(step, features, feeds)
    assert [node.name for node in made.graph.node] == ["backbone.flatten/Flatten", "correction/Mul", "correction/Add"]
    onnx.checker.check_model(made)
    for one, wanted in zip(feeds, features, strict=True):
        assert_allclose(run(made, one)[0], wanted, atol=1e-6)
    assert step.graph.node[0].output[0] == "feature"  # the given graph is not changed


def test_a_pattern_that_names_no_node_is_refused() -> None:
    mine = INT8.model_copy(update={"keep_float32": ("backbone.*", "backbone.conv/Conf")})
    with pytest.raises(ConfigError, match=r"keep_float32 'backbone.conv/Conf' \(did you mean 'backbone.conv/Conv'\?\)"):
        convert(ONE, mine, SEEN)
