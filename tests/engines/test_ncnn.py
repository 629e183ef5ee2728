"""What is ncnn's own: its attachment, its words, memory that is not shared, layouts with gaps between channels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import Artifact, StateSpec
from kd_edge.engines import ENGINES, open_engine
from kd_edge.engines.ncnn import PARAM, WEIGHTS, blob_sizes, load_ncnn
from kd_edge.errors import ArtifactError
from kd_edge.preprocess import Preprocess

from .conftest import SIDE, as_ncnn, manifest, step_model

if not ENGINES["ncnn"].is_installed():
    pytest.skip("ncnn is not installed", allow_module_level=True)
ncnn = load_ncnn()

STEP = as_ncnn(step_model())
CONVOLUTION = STEP[PARAM].replace(b"Flatten", b"Convolution").decode()


def carrying(folder: Path, param: str | bytes, weights: bytes = b"") -> Artifact:
    text = param if isinstance(param, bytes) else param.encode()
    artifact.write(
        step_model().SerializeToString(), manifest(), None, folder / "a.onnx", {PARAM: text, WEIGHTS: weights}
    )
    return artifact.load(folder / "a.onnx")


def test_says_its_release_and_where_it_runs(step: Artifact) -> None:
    with open_engine(step, engine="ncnn") as engine:
        assert (engine.name, engine.providers) == (f"ncnn {ncnn.__version__}", ("cpu",))


def test_every_option_that_rounds_is_off_and_winograd_is_on(step: Artifact) -> None:
    with open_engine(step, engine="ncnn", threads=3) as engine:
        options = engine._net.opt
        assert options.num_threads == 3
        rounding = [name for name in dir(options) if "fp16" in name or "bf16" in name]
        assert len(rounding) >= 4
        assert not any(getattr(options, name) for name in (*rounding, "use_vulkan_compute"))
        assert options.use_winograd_convolution


def test_an_artifact_without_the_attachment_is_told_how_to_get_it(tmp_path: Path) -> None:
    artifact.write(step_model().SerializeToString(), manifest(), None, tmp_path / "a.onnx")
    bare = artifact.load(tmp_path / "a.onnx")
    assert ENGINES["ncnn"].unsuited(bare) == "it carries no ncnn model (kd-edge export --with ncnn)"
    with pytest.raises(ArtifactError, match=r"cannot run on ncnn: it carries no ncnn model"):
        open_engine(bare, engine="ncnn")


def test_windows_of_one_segment_are_not_tried(save: Callable[..., Artifact]) -> None:
    """ncnn divides by the size of the empty past and takes the process with it."""
    assert "one segment" in str(ENGINES["ncnn"].unsuited(save(step_model(), segments=1)))


@pytest.mark.parametrize(
    ("param", "weights", "told"),
    [
        ("hello", b"", "parse magic failed"),
        (STEP[PARAM].replace(b"Reduction", b"NoSuchLayer"), b"", "layer NoSuchLayer not exists or registered"),
        (STEP[PARAM], b"12345678", r"its layers do not match its 8 bytes of weights"),
        (f"{CONVOLUTION.rstrip()}\n".replace("mean4 mean ", "mean4 mean 0=1 1=1 6=1"), b"\0" * 6, "failed"),
        (b"\xff\xfe", b"", "codec can't decode"),
    ],
)
def test_a_net_ncnn_refuses_is_one_line_with_its_own_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], param: str | bytes, weights: bytes, told: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"is refused by ncnn [0-9.]+: .*{told}") as caught:
        open_engine(carrying(tmp_path, param, weights), engine="ncnn")
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_what_another_thread_says_meanwhile_is_passed_on(
    step: Artifact, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = ncnn.Net

    def net() -> object:
        os.write(2, b"of the camera\n")
        return made()

    with monkeypatch.context() as patch:
        patch.setattr(ncnn, "Net", net)
        open_engine(step, engine="ncnn").close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)  # closed at start
        open_engine(step, engine="ncnn").close()
    assert capfd.readouterr().err == "of the camera\n"


@pytest.mark.parametrize("side", [8, 9])
def test_every_pixel_of_every_channel_arrives_and_comes_back(save: Callable[..., Artifact], side: int) -> None:
    """ncnn's channels begin at multiples of 16 bytes, those of an array of 9 x 9 pixels do not."""
    model, shape = step_model(states=True), (3, side, side)
    for tensor in (*model.graph.input, *model.graph.output):
        if len(dims := tensor.type.tensor_type.shape.dim) == 4:
            for dim, size in zip(dims[1:], shape, strict=True):
                dim.dim_value = size
    spec, states = Preprocess(resize_px=side, input_px=side, replicate=3), (StateSpec(name="before", shape=shape),)
    frames, before = np.random.default_rng(0).normal(size=(2, 5, *shape)).astype(np.float32)
    with open_engine(save(model, preprocess=spec, states=states), engine="ncnn") as engine:
        binding = engine.bind(5)
        binding.frame[:], binding.states_in[0][:] = frames, before
        binding.run()
        np.testing.assert_array_equal(binding.states_out[0], frames)
        np.testing.assert_allclose(binding.feature[:, 0], frames.mean(axis=(1, 2, 3)), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(binding.feature[:, 1], before.max(axis=(1, 2, 3)))


def test_a_layer_that_writes_into_its_input_leaves_the_callers_arrays(tmp_path: Path) -> None:
    """On memory that is not ncnn's own it would crash."""
    param = STEP[PARAM].decode().replace("\n11 13\n", "\n12 14\n").replace(" 1 1 past sum ", " 1 1 positive sum ")
    param = param.replace("\nReduction layer7", "\nReLU in_place 1 1 past positive\nReduction layer7")
    with open_engine(carrying(tmp_path, param), engine="ncnn") as engine:
        binding = engine.bind(1)
        binding.past[:] = [[-1, 2], [3, -4]]
        for _ in range(2):
            binding.run()
            assert binding.logits[0].tolist() == [3, 2]
        assert binding.past[0].tolist() == [[-1, 2], [3, -4]]


def test_memory_does_not_grow(step: Artifact) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with open_engine(step, engine="ncnn") as engine:
        binding = engine.bind(64)
        for _ in range(20):
            binding.run()
        before = resident()
        for _ in range(100):
            binding.run()
        assert resident() - before < 1_000_000


def test_sizes_of_all_that_is_computed() -> None:
    sizes = blob_sizes(STEP[PARAM].decode(), b"")
    assert {name: sizes[name] for name in ("frame", "past", "feature", "logits")} == {
        "frame": (3, SIDE, SIDE, 1),
        "past": (2, 2, 2, 1),
        "feature": (1, 2, 1, 1),
        "logits": (1, 2, 1, 1),
    }


def test_importing_it_reads_no_other_package_and_asks_no_network() -> None:
    """Its distribution brings a model zoo, which downloads; nothing of it is imported."""
    program = (
        "import sys; from kd_edge.engines.ncnn import load_ncnn; load_ncnn()\n"
        "assert not {'ncnn.model_zoo', 'ncnn.utils', 'requests', 'portalocker', 'tqdm'} & sys.modules.keys()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("choice", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_sleep_unless_the_user_wants_otherwise(choice: str | None, policy: str) -> None:
    """In a process of its own: OpenMP reads the switch, and tells what it read, while it is loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "TRUE"}
    if choice is not None:
        environment["OMP_WAIT_POLICY"] = choice
    program = "import os; from kd_edge.engines.ncnn import load_ncnn; load_ncnn()\n"
    program += f"assert os.environ.get('OMP_WAIT_POLICY') == {choice!r}"
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
