from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kd_edge import recipes
from kd_edge.artifact import load, write
from kd_edge.data import Sample, open_dataset
from kd_edge.engines import Engine, open_engine
from kd_edge.errors import ExportError
from kd_edge.export import ExportProfile
from kd_edge.export.exporter import build_graph, describe
from kd_edge.export.parity import check_classes
from kd_edge.export.recordings import Recordings, evenly, spread
from kd_edge.export.streams import StreamComparison
from kd_edge.models.saved import SavedStudent

FP32 = recipes.load("export", "fp32", ExportProfile)


@pytest.fixture(scope="module")
def student(run: Path) -> SavedStudent:
    return SavedStudent.load(run)


@pytest.fixture(scope="module")
def recordings(student: SavedStudent) -> Recordings:
    return Recordings.of(student, open_dataset(student.spec.data))


@pytest.fixture(scope="module")
def engine(student: SavedStudent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path = tmp_path_factory.mktemp("stream") / "a.onnx"
    graph = build_graph(student.model, student.spec, FP32).SerializeToString()
    write(graph, describe(student.model, student.spec, FP32, name="a"), None, path)
    with open_engine(load(path)) as opened:
        yield opened


def test_without_validation_the_test_clips_are_judged_by_and_it_says_so(recordings: Recordings) -> None:
    assert recordings.validation == ()
    assert recordings.compared == recordings.test
    assert recordings.side == "test clips (the recipe holds nobody out)"


def test_who_was_held_out_judges(student: SavedStudent) -> None:
    protocol = student.summary.protocol.model_copy(update={"validation_subjects": ("2",)})
    held = SavedStudent(
        student.path, student.spec, student.model, student.summary.model_copy(update={"protocol": protocol})
    )
    found = Recordings.of(held, open_dataset(student.spec.data))
    assert {sample.subject for sample in found.compared} == {"2"}
    assert "2" not in {sample.subject for sample in found.train}
    assert found.side == "validation clips (subject 2)"


def test_clips_of_one_class_judge_nothing(recordings: Recordings) -> None:
    lonely = Recordings(recordings.dataset, "nir", (), recordings.test, (), "subject 9")
    named = rf"all 3 validation clips \(subject 9\) that can be read are of class '{recordings.dataset.labels[2]}'"
    with pytest.raises(ExportError, match=named):
        check_classes(np.array([2, 2, 2]), lonely)
    check_classes(np.array([2, 2, 1]), lonely)


def test_evenly_by_hand() -> None:
    assert evenly("abcdefghi", 3) == ["a", "e", "i"]
    assert evenly("abc", 9) == ["a", "b", "c"]
    samples = [Sample(f"{label}{subject}", subject, "v", "1", label) for label in (1, 0) for subject in "21"]
    assert [sample.id for sample in spread(samples, 2)] == ["01", "12"]


def test_a_graph_agrees_with_itself(student: SavedStudent, recordings: Recordings, engine: Engine) -> None:
    found = StreamComparison(student, recordings, engine, 200).figures(engine)
    assert found.frames >= 200
    assert (found.agreement, found.accuracy_change) == (1.0, 0.0)
    low, high = found.agreement_interval
    assert 0.95 < low < 1.0 == high  # all frames agree, yet nobody saw all frames there are


class Contrary:
    """An engine whose classes are wrong by one, from its third run on in every four."""

    def __init__(self, inner: Engine) -> None:
        self.manifest, self._inner, self.runs = inner.manifest, inner, 0

    def bind(self, batch: int) -> object:
        binding = self._inner.bind(batch)
        run = binding._run

        def contrary() -> None:
            run()
            self.runs += 1
            if self.runs % 4 == 3:
                binding.logits[:] = np.roll(binding.logits, 1, axis=1)

        binding._run = contrary
        return binding


def test_disagreement_is_counted(student: SavedStudent, recordings: Recordings, engine: Engine) -> None:
    found = StreamComparison(student, recordings, engine, 200).figures(Contrary(engine))  # type: ignore[arg-type]
    assert found.agreement == pytest.approx(0.75, abs=0.02)
    assert found.agreement_interval[0] < found.agreement < found.agreement_interval[1]


def test_a_window_that_is_never_full(student: SavedStudent, recordings: Recordings, engine: Engine) -> None:
    short = Recordings(recordings.dataset, "nir", (), recordings.test[:2], (), "two clips")
    manifest = engine.manifest
    engine.manifest = manifest.model_copy(update={"clip_seconds": 3000.0})
    try:
        with pytest.raises(ExportError, match="is ever full on the validation clips"):
            StreamComparison(student, short, engine, 10)
    finally:
        engine.manifest = manifest
