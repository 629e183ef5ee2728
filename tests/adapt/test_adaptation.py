from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from kd_edge import adapt as package
from kd_edge import artifact as artifacts
from kd_edge.adapt import Adapted, adapt, adaptation, growing
from kd_edge.adapt.clips import Watched
from kd_edge.adapt.graph import graph_of
from kd_edge.artifact import Artifact, Manifest, load, new_keys, rewrite
from kd_edge.artifact import sign as sign_artifact
from kd_edge.data import open_dataset
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError, ConfigError, DataError, KdEdgeError
from kd_edge.export import ExportProfile, export
from kd_edge.export.precision.fp16 import to_half
from kd_edge.runtime import Recognizer
from kd_edge.types import LabelState
from tests.adapt.conftest import FPS, waving, write_clips
from tests.runs import DATA


@pytest.fixture(scope="module")
def adapted(student: Artifact, clips: Path, keep: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    return adapt(student.path, [("wave", clips)], tmp_path_factory.mktemp("adapted") / "robot.onnx", keep=keep)


def answers(artifact: Artifact, engine: str = "onnxruntime") -> dict[str, np.ndarray]:
    """Of random inputs."""
    with open_engine(artifact, engine=engine) as opened:  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        inputs = {name: rng.random((3, *shape), dtype=np.float32) for name, shape in opened.tensors.inputs.items()}
        return opened.infer(inputs)


def check_same_but_one(parent: Artifact, child: Artifact, engine: str = "onnxruntime") -> None:
    before, after = answers(parent, engine), answers(child, engine)
    assert np.array_equal(before["feature"], after["feature"])
    assert np.array_equal(before["logits"], after["logits"][:, :10])
    assert after["logits"].shape == (3, 11)
    assert np.isfinite(after["logits"]).all()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_old_logits_are_the_same_bit_for_bit(student: Artifact, adapted: Adapted, engine: str) -> None:
    check_same_but_one(student, load(adapted.file), engine)


def test_the_manifest_tells_what_was_done(student: Artifact, adapted: Adapted) -> None:
    parent, child = student.manifest, load(adapted.file).manifest
    assert child.labels == (*parent.labels, "wave")
    assert child.trained_labels == parent.labels
    (facts,) = child.added
    assert (facts,) == adapted.added
    assert facts.parent_sha256 == parent.sha256 != child.sha256
    assert (facts.clips, facts.shorter, facts.windows, facts.folds) == (6, 0, 24, "subjects")
    assert facts.accuracy == 1.0
    assert facts.separation > growing.LEAST_SEPARATION
    assert facts.nearest in parent.labels
    assert facts.kept_clips == 10
    assert facts.kept_accuracy is not None
    assert facts.kept_accuracy[0] == facts.kept_accuracy[1]
    same = parent.model_dump(exclude={"labels", "added", "familiar", "sha256", "manifest_sha256"})
    assert child.model_dump(include=set(same)) == same
    assert parent.familiar is not None
    assert child.familiar is not None
    assert (child.familiar.classes, child.familiar.threshold) == (11, parent.familiar.threshold)
    assert np.array_equal(child.familiar.arrays()[0][:10], parent.familiar.arrays()[0])


def test_the_golden_clip_has_the_new_logit_and_the_old_ones(student: Artifact, adapted: Adapted) -> None:
    before, child = student.golden, load(adapted.file)
    assert before is not None
    assert child.golden is not None
    assert np.array_equal(child.golden.frames, before.frames)
    assert np.array_equal(child.golden.logits[:10], before.logits)
    with Recognizer.load(child) as recognizer:
        assert recognizer.self_test_error is not None
        assert recognizer.self_test_error <= child.golden.tolerance


def test_a_stream_is_told_the_new_class_and_the_old_ones_as_before(
    student: Artifact, adapted: Adapted, tmp_path: Path
) -> None:
    """Somebody waves who was not there before; the stripes are taken for noise where pictures are judged."""
    child = load(adapted.file)
    rewrite(child, child.manifest.model_copy(update={"health": None}), tmp_path / "any.onnx")
    stamps = np.round(np.arange(75) * 1e9 / FPS).astype(np.int64)
    with Recognizer.load(tmp_path / "any.onnx") as new, Recognizer.load(student) as old:
        wave = [new.push(frame, int(stamp)) for frame, stamp in zip(waving(77, 2.5), stamps, strict=True)][-1]
        assert wave is not None
        assert wave.index == 10
        assert (wave.label, wave.state, wave.detail) == ("wave", LabelState.OK, "")
        still = np.full((64, 80), 90, dtype=np.uint8)
        for recognizer in (new, old):
            recognizer.reset()
        pushed = [(new.push(still, int(s)), old.push(still, int(s))) for s in stamps + int(1e10)][-1]
        after, before = pushed
        assert after is not None
        assert before is not None
        share = after.probabilities[:10] / after.probabilities[:10].sum()
        np.testing.assert_allclose(share, before.probabilities, rtol=1e-4)
        assert after.index == before.index


def test_added_classes_are_the_last_of_the_labels(adapted: Adapted) -> None:
    values = load(adapted.file).manifest.model_dump()
    for labels in (values["labels"][::-1], values["labels"][:-1]):
        with pytest.raises(ValidationError, match="the added classes are not the last of the labels"):
            Manifest.model_validate({**values, "labels": labels, "familiar": None})


def test_it_can_be_evaluated_on_the_data_of_the_training(adapted: Adapted) -> None:
    from kd_edge.evaluate import evaluate

    result = evaluate(adapted.file)
    assert result.clip.clips == 10
    assert np.array(result.confusion).shape == (11, 11)


def test_classes_are_added_one_after_the_other_or_one_by_one(student: Artifact, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "nod").mkdir()
    for k in range(4):
        np.save(tmp_path / "nod" / f"subject{k}_nir.npy", waving(k)[:, :, 8:72].swapaxes(1, 2))  # up and down
    classes = [("wave", clips), ("nod", tmp_path / "nod")]
    together = adapt(student.path, classes, tmp_path / "both.onnx")
    assert together.labels[-2:] == ("wave", "nod")
    assert len(together.added) == 2
    first = adapt(student.path, classes[:1], tmp_path / "one.onnx")
    second = adapt(first.file, classes[1:], tmp_path / "two.onnx")
    one, two = load(together.file).manifest, load(second.file).manifest
    assert one.labels == two.labels
    assert two.added[0].parent_sha256 == student.manifest.sha256
    assert two.added[1].parent_sha256 == load(first.file).manifest.sha256
    before, after = answers(load(first.file)), answers(load(second.file))
    assert np.array_equal(before["logits"], after["logits"][:, :11])
    check_same_but_one(student, load(first.file))


def test_half_precision_is_adapted_too(student: Artifact, clips: Path, tmp_path: Path) -> None:
    half = to_half(onnx.load_from_string(graph_of(student))).SerializeToString()
    facts = student.manifest.model_copy(update={"precision": "fp16"})
    artifacts.write(half, facts, student.golden, tmp_path / "a.onnx")
    check_adapts(load(tmp_path / "a.onnx"), clips, tmp_path / "b.onnx")


@pytest.mark.slow
def test_integers_are_adapted_too(run: Path, clips: Path, tmp_path: Path) -> None:
    loose = {"max_abs_error": 10.0, "min_argmax_agreement": 0.0, "range_clips": 2, "parity_clips": 2}
    profile = ExportProfile(name="loose", precision="int8", stream_frames=0, health_clips=20, **loose)
    check_adapts(export(run, profile, tmp_path / "a.onnx").artifact, clips, tmp_path / "b.onnx")


def check_adapts(parent: Artifact, clips: Path, out: Path) -> None:
    """It is adapted, and proves itself."""
    child = load(adapt(parent.path, [("wave", clips)], out).file)
    assert child.manifest.precision == parent.manifest.precision != "fp32"
    check_same_but_one(parent, child)
    with Recognizer.load(child) as recognizer:
        assert recognizer.degraded_reason == ""


def test_what_other_engines_were_given_is_left_out_and_told(student: Artifact, clips: Path, tmp_path: Path) -> None:
    attached = {"ncnn.param": b"7767517", "ncnn.bin": b"weights"}
    artifacts.write(graph_of(student), student.manifest, student.golden, tmp_path / "a.onnx", attachments=attached)
    parent = load(tmp_path / "a.onnx")
    assert set(parent.attachments) == {"ncnn.param", "ncnn.bin"}
    result = adapt(parent.path, [("wave", clips)], tmp_path / "b.onnx")
    assert result.left_out == ("ncnn.param", "ncnn.bin")
    child = load(result.file)
    assert not child.attachments
    check_same_but_one(student, child)
    with pytest.raises(ArtifactError, match="carries no ncnn model"):
        open_engine(child, engine="ncnn", strict=True)


def test_without_a_reference_the_kept_clips_tell(student: Artifact, clips: Path, keep: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    rewrite(student, student.manifest.model_copy(update={"familiar": None}), bare)
    with pytest.raises(ArtifactError, match=r"no statistics of its classes' features.*export the run again"):
        adapt(bare, [("wave", clips)], tmp_path / "b.onnx")
    result = adapt(bare, [("wave", clips)], tmp_path / "b.onnx", keep=keep)
    assert result.added[0].familiar is None
    check_same_but_one(load(bare), load(result.file))
    some = tmp_path / "some"
    for name in ("clap", "drink"):
        some.joinpath(name).mkdir(parents=True)
        for file in (keep / name).iterdir():
            (some / name / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="no clip of 'eat' is kept"):
        adapt(bare, [("wave", clips)], tmp_path / "c.onnx", keep=some)


def test_the_unknown_threshold_is_fitted_where_every_class_has_clips(
    student: Artifact, clips: Path, keep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "THRESHOLD_CLIPS", 1)
    result = adapt(student.path, [("wave", clips)], tmp_path / "b.onnx", keep=keep)
    before, after = result.unknown_threshold
    assert before == student.manifest.unknown_threshold
    assert after != before
    manifest = load(result.file).manifest
    assert manifest.unknown_threshold == after
    assert manifest.calibrated_on == "16 clips: kept, and held out of the classes that were added"


def test_signing(student: Artifact, clips: Path, tmp_path: Path) -> None:
    key, signed = tmp_path / "robot.key", tmp_path / "signed.onnx"
    public = new_keys(key)
    signed.write_bytes(student.path.read_bytes())
    sign_artifact(signed, artifacts.SigningKey(key))
    plain = adapt(signed, [("wave", clips)], tmp_path / "plain.onnx")
    assert (plain.was_signed, plain.is_signed) == (True, False)
    with pytest.raises(ArtifactError, match="is not signed"):
        load(plain.file, trust=public)
    again = adapt(signed, [("wave", clips)], tmp_path / "again.onnx", key=key)
    assert (again.was_signed, again.is_signed) == (True, True)
    assert load(again.file, trust=public).signed_by == artifacts.SigningKey(key).fingerprint
    artifacts.beside(tmp_path / "beside.onnx").write_bytes(b"of another file")
    assert adapt(student.path, [("wave", clips)], tmp_path / "beside.onnx").was_signed
    onto_itself = adapt(signed, [("wave", clips)], signed)
    assert (onto_itself.was_signed, onto_itself.is_signed, load(signed).manifest.labels[-1]) == (True, False, "wave")


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("clap", "a class already"),
        ("Sit_Down", r"a class already \('sit down'\)"),
        ("", "blank"),
        ("  ", "blank"),
        ("wa\x1bve", "control characters"),
        ("w" * 201, "200 characters"),
    ],
)
def test_labels_that_clash_or_are_none(student: Artifact, clips: Path, tmp_path: Path, label: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        adapt(student.path, [(label, clips)], tmp_path / "b.onnx")
    assert not list(tmp_path.iterdir())


def test_one_label_twice(student: Artifact, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--add 'Wave' twice"):
        adapt(student.path, [("wave", clips), ("Wave", clips)], tmp_path / "b.onnx")


def test_too_few_clips(student: Artifact, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "wave", 3)
    np.save(folder / "subject5_trial5_nir.npy", waving(5, 0.5))
    with pytest.raises(DataError, match=r"3 clips of 'wave' fill .* \(1 are shorter\)"):
        adapt(student.path, [("wave", folder)], tmp_path / "b.onnx")


def test_a_class_that_looks_like_an_old_one_is_refused_by_name(student: Artifact, tmp_path: Path) -> None:
    """Clapping, called applause."""
    folder, dataset = tmp_path / "applause", open_dataset(DATA)
    folder.mkdir()
    for k, sample in enumerate(s for s in dataset.samples if dataset.labels[s.label] == "clap"):
        np.save(folder / f"subject{k}_nir.npy", dataset.open(sample, "nir").frames)
    with pytest.raises(DataError, match="'applause' cannot be distinguished from 'clap'"):
        adapt(student.path, [("applause", folder)], tmp_path / "b.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["applause"]


def test_a_class_that_takes_kept_clips_is_refused_unless_forced(
    student: Artifact, clips: Path, keep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_gate = growing.fit_gate

    def greedy(*given):
        fit = fit_gate(*given)
        return fit._replace(gate=fit.gate._replace(weights=fit.gate.weights * 0, bias=50.0))

    monkeypatch.setattr(growing, "fit_gate", greedy)
    right = load(adapt(student.path, [("wave", clips)], tmp_path / "forced.onnx", keep=keep, force=True).file)
    accuracy = right.manifest.added[0].kept_accuracy
    assert accuracy is not None
    assert accuracy[0] > accuracy[1] == 0.0
    with pytest.raises(DataError, match=r"with 'wave' 0.0% of 10 kept .* become 'wave', most of .* '.*--force"):
        adapt(student.path, [("wave", clips)], tmp_path / "b.onnx", keep=keep)
    assert not (tmp_path / "b.onnx").exists()


def test_one_kept_window_of_each_class_tells_no_spread(student: Artifact, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    rewrite(student, student.manifest.model_copy(update={"familiar": None}), bare)
    each = np.arange(10)
    features = np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32)
    kept = Watched(features, features[:, :10], each, each, ("",) * 10, np.ones(10, np.bool_))
    with pytest.raises(DataError, match=r"10 windows of 10 classes.*Expected two windows of each class"):
        adaptation._others(load(bare), kept)


def called(right: int, count: int = 100) -> Watched:
    """Clips of class 0, of which so many are taken for it; the others for class 1."""
    logits = np.zeros((count, 2), dtype=np.float32)
    logits[np.arange(count), (np.arange(count) >= right).astype(int)] = 1
    each = np.arange(count)
    return Watched(np.zeros((count, 1), np.float32), logits, each, each * 0, ("",) * count, np.ones(count, np.bool_))


def test_one_kept_clip_in_a_hundred_may_be_lost_and_no_more(student: Artifact) -> None:
    growing._check_kept("wave", called(100), called(99), student.manifest)
    growing._check_kept("wave", called(57), called(56), student.manifest)
    with pytest.raises(DataError, match=r"with 'wave' 98.0% of 100 kept clips .* instead of 100.0%"):
        growing._check_kept("wave", called(100), called(98), student.manifest)
    with pytest.raises(DataError, match="of 99 kept clips"):
        growing._check_kept("wave", called(99, 99), called(98, 99), student.manifest)


def test_a_class_that_takes_clips_of_one_added_before_is_refused() -> None:
    growing._check_left("nod", "wave", called(7, 10))
    with pytest.raises(DataError, match=r"'nod' cannot be distinguished from 'wave': with it 6 of 10 clips of 'wave'"):
        growing._check_left("nod", "wave", called(6, 10))


def test_one_folder_for_two_classes_is_refused(student: Artifact, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'nod' cannot be distinguished from 'wave'"):
        adapt(student.path, [("wave", clips), ("nod", clips)], tmp_path / "b.onnx")
    assert not list(tmp_path.iterdir())


def test_kept_clips_that_are_too_short_and_unlike_the_training_are_told(
    student: Artifact, clips: Path, keep: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(keep, kept)
    np.save(kept / "clap" / "subject8_trial8_nir.npy", waving(8, 0.5))
    np.save(kept / "eat" / "subject8_trial8_nir.npy", np.zeros((60, 64, 80), dtype=np.uint8))
    result = adapt(student.path, [("wave", clips)], tmp_path / "b.onnx", keep=kept)
    assert (result.kept_left_out, result.added[0].kept_clips) == (2, 10)
    assert result.kept_familiar is not None
    assert 0 <= result.kept_familiar <= 1


@pytest.mark.parametrize("change", [{"variances": 1e300}, {"threshold": 1e-300}])
def test_a_manifest_that_lies_about_its_features_is_one_line(
    student: Artifact, clips: Path, tmp_path: Path, change: dict[str, float]
) -> None:
    familiar = student.manifest.familiar
    assert familiar is not None
    update = {name: (value,) * familiar.rank if name == "variances" else value for name, value in change.items()}
    lie = student.manifest.model_copy(update={"familiar": familiar.model_copy(update=update)})
    rewrite(student, lie, tmp_path / "a.onnx")
    with pytest.raises(KdEdgeError):
        adapt(tmp_path / "a.onnx", [("wave", clips)], tmp_path / "b.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_clip_graph_has_no_features(student: Artifact, clips: Path, tmp_path: Path) -> None:
    rewrite(student, student.manifest.model_copy(update={"graph": "clip"}), tmp_path / "clip.onnx")
    with pytest.raises(ArtifactError, match="a clip graph, without features to adapt"):
        adapt(tmp_path / "clip.onnx", [("wave", clips)], tmp_path / "b.onnx")


def test_a_graph_that_answers_otherwise_is_not_written(
    student: Artifact, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extend = growing.with_class

    def wrong(graph, gate, manifest):
        return extend(graph, gate._replace(bias=gate.bias + 1), manifest)

    monkeypatch.setattr(growing, "with_class", wrong)
    with pytest.raises(ArtifactError, match="logits that differ by"):
        adapt(student.path, [("wave", clips)], tmp_path / "b.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_what_was_there(
    student: Artifact, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b.onnx"
    out.write_bytes(b"before")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from pathlib import Path; from kd_edge.adapt import adapt; from kd_edge.errors import ArtifactError\n"
        "try: adapt(Path(sys.argv[1]), [('wave', Path(sys.argv[2]))], Path(sys.argv[3]))\n"
        "except ArtifactError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(student.path), str(clips), str(out)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "cannot be written (File too large)" in done.stdout, done
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["b.onnx"]


def test_a_foreign_or_damaged_file_is_refused(student: Artifact, clips: Path, tmp_path: Path) -> None:
    content = bytearray(student.path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(content)
    with pytest.raises(KdEdgeError):
        adapt(tmp_path / "damaged.onnx", [("wave", clips)], tmp_path / "b.onnx")
    with pytest.raises(ArtifactError, match="no file"):
        adapt(tmp_path / "none.onnx", [("wave", clips)], tmp_path / "b.onnx")


# ------------------------------------------------------------------------------------------------------ on the robot

BARE = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "scipy", "sklearn", "kd_edge.models", "kd_edge.export"):
    sys.modules[name] = None  # an import fails
from pathlib import Path
from kd_edge.adapt import adapt
from kd_edge.runtime import Recognizer
result = adapt(Path(sys.argv[1]), [("wave", Path(sys.argv[2]))], Path(sys.argv[3]), keep=Path(sys.argv[4]))
Recognizer.load(result.file).close()
print(result.labels[-1])
"""


def test_a_robot_adapts_without_torch_and_onnx(student: Artifact, clips: Path, keep: Path, tmp_path: Path) -> None:
    arguments = [str(path) for path in (student.path, clips, tmp_path / "b.onnx", keep)]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "wave\n"), done.stderr


def test_public_names() -> None:
    assert set(package.__all__) == {"Adapted", "adapt"}
