from __future__ import annotations

import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge import metrics
from kd_edge.artifact import Manifest
from kd_edge.artifact.manifest import ActivationRanges, Parity, StageFigures, StreamFigures
from kd_edge.errors import ExportError
from kd_edge.export.charts import confusion_chart
from kd_edge.export.layers import LayerError
from kd_edge.export.page import check_report_folder, write_report
from kd_edge.export.parity import Answers
from kd_edge.export.profile import ExportProfile
from kd_edge.preprocess import Preprocess

LABELS = ("wave", "<script>alert(1)</script>", 'a|b "c" & *d*')
TRUTH = np.array([0, 0, 1, 1, 2, 2, 2, 2])
TRAINED = np.float32([[4, 0, 0], [4, 0, 0], [0, 4, 0], [0, 4, 0], [0, 0, 4], [0, 0, 4], [0, 0, 4], [4, 0, 0]])
INT8 = TRAINED.copy()
INT8[1] = (1, 1.5, 0)  # a clip of 'wave' is lost
PROFILE = ExportProfile(
    name="lossy", precision="int8", max_abs_error=1.0, min_argmax_agreement=0.75, min_stream_agreement=0.9
)
LAYERS = (
    LayerError("backbone.conv1/Conv", "Conv", 0.002, 0.0, 12.5),
    LayerError("backbone.relu/Relu", "Relu", 0.0015, 0.002, 12.5),
    LayerError("backbone.conv2/Conv", "Conv", 0.25, 0.0015, 70000.0),
    LayerError("head.classifier/Gemm", "Gemm", 0.0, 0.25, 4.0),
)


def answers_of(
    stage: str, logits: np.ndarray, before: np.ndarray, labels: int = 3, milliseconds: float = 1.25
) -> Answers:
    classes, difference = logits.argmax(axis=1), np.abs(logits - TRAINED[:, :labels])
    recall = metrics.per_class_accuracy(classes, TRUTH, labels)
    figures = StageFigures(
        stage=stage,
        engine=f"engine of {stage}",
        max_abs_error=float(difference.max()),
        relative_error=float(np.linalg.norm(difference) / np.linalg.norm(TRAINED)),
        flips=int(np.sum(classes != before.argmax(axis=1))),
        accuracy=metrics.accuracy(classes, TRUTH),
        macro_f1=metrics.macro_f1(classes, TRUTH, labels),
        per_class=tuple(None if np.isnan(share) else float(share) for share in recall),
        ece=metrics.expected_calibration_error(metrics.softmax(logits, 2.0), TRUTH),
    )
    return Answers(figures, logits, milliseconds)


ANSWERS = (
    answers_of("torch", TRAINED, TRAINED),
    answers_of("onnx", TRAINED, TRAINED),
    answers_of("int8", INT8, TRAINED),
)
PARITY = Parity(
    max_abs_error=3.0,
    argmax_agreement=0.875,
    clips=8,
    tolerance=4.0,
    side="validation clips (subjects s7)",
    stages=tuple(answer.figures for answer in ANSWERS),
    stream=StreamFigures(
        clips=6,
        frames=5123,
        agreement=0.9876,
        agreement_interval=(0.9812, 0.9934),
        accuracy=0.7346,
        accuracy_change=-0.0123,
        accuracy_change_interval=(-0.0234, 0.0047),
    ),
)
MANIFEST = Manifest(
    name="robot <b>",
    labels=LABELS,
    modality="depth",
    band="depth",
    dtype="uint16",
    value_unit="mm",
    value_range=(0, 8000),
    preprocess=Preprocess(resize_px=40, input_px=32),
    segments=8,
    clip_seconds=2.0,
    feature_size=16,
    temporal="tsn",
    precision="int8",
    kept_float32={"backbone.conv2/Conv": "overflows"},
    ranges=ActivationRanges(side="training clips of odd_even", clips=("a", "b"), frames=16, method="entropy"),
    temperature=2.0,
    unknown_threshold=0.45,
    calibrated_on="validation clips of subject s7",
    parity=PARITY,
    versions={"torch": "9.8.7"},
)


class Page(HTMLParser):
    """Elements, attributes, texts and tables of a page; fails where one is not closed."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.text, self.declared, self._open = "", "", list[str]()
        self.feed(text)
        self.close()
        assert not self._open

    def handle_decl(self, decl: str) -> None:
        self.declared = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, *start: str) -> list[str]:
        (found,) = [row for row in self.rows if row[: len(start)] == list(start)]
        return found[len(start) :]


def written(folder: Path, manifest: Manifest = MANIFEST, **changes: Any) -> tuple[Page, str, str]:
    """The page, its text and the Markdown."""
    facts: dict[str, Any] = {
        "profile": PROFILE,
        "truth": TRUTH,
        "answers": ANSWERS,
        "layers": LAYERS,
        "file_bytes": 11_900_000,
    }
    markdown, page = write_report(folder, manifest=manifest, **(facts | changes))
    assert (markdown, page) == (folder / "report.md", folder / "report.html")
    text = page.read_text(encoding="utf-8")
    return Page(text), text, markdown.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str, str]:
    return written(tmp_path_factory.mktemp("reports") / "a" / "report")


def test_page_is_whole_and_asks_for_nothing(report: tuple[Page, str, str]) -> None:
    page, text, _ = report
    assert page.declared == "doctype html"
    assert ("charset", "utf-8") in page.attributes
    assert ("content", "width=device-width, initial-scale=1") in page.attributes
    assert not {"script", "link", "img", "iframe", "object", "form", "base", "use", "image"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "action", "srcset", "data"} & {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text


def test_texts_of_others_are_texts(report: tuple[Page, str, str]) -> None:
    page, text, markdown = report
    assert "<script" not in text
    assert "robot <b>: export to int8" in page.text
    assert "b" not in page.tags
    for label in LABELS:
        assert label in page.text
    assert "<script" not in markdown
    assert r'a\|b "c" &amp; \*d\*' in markdown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markdown


def test_stages_are_those_of_the_manifest(report: tuple[Page, str, str]) -> None:
    page, _, markdown = report
    # int8: clip 1 goes from (4, 0, 0) to (1, 1.5, 0): sqrt(9 + 2.25) / sqrt(8 * 16)
    # macro F1: (1/2 + 4/5 + 6/7) / 3, of the trained model (4/5 + 1 + 6/7) / 3
    expected = ["3", "0.296", "1", "75.0 %", "71.9 %"]
    row = page.row("int8", "engine of int8")
    assert row[:5] == expected
    assert row[5:] == [f"{100 * PARITY.stages[-1].ece:.1f} %", "1.25"]
    assert f"| int8 | engine of int8 | {' | '.join(row)} |" in markdown
    assert page.row("torch", "engine of torch")[:5] == ["0", "0", "0", "87.5 %", "88.6 %"]
    assert page.row("onnx", "engine of onnx")[2] == "0"


def test_stream_is_given_with_its_interval(report: tuple[Page, str, str]) -> None:
    page, _, _ = report
    assert "6 clips, 5,123 frames" in page.text
    assert "98.8 % of the frames (95 % interval 98.1 % to 99.3 %)" in page.text
    assert (
        "73.5 % of these frames, -1.2 points against the float32 graph (95 % interval -2.3 points to +0.5 points)"
        in page.text
    )


def test_bounds_that_are_met_say_that_it_may_be_trusted(report: tuple[Page, str, str]) -> None:
    page, _, markdown = report
    assert page.row("largest error, onnx") == ["0", "4e-05", "yes"]  # 1e-5 times the largest logit, 4
    assert page.row("largest error, int8") == ["3", "4", "yes"]
    assert page.row("same class, at least") == ["87.5 %", "75.0 %", "yes"]
    assert page.row("accuracy lost, at most") == ["12.5 %", "100.0 %", "yes"]
    assert page.row("same class in a stream, at least") == ["98.8 %", "90.0 %", "yes"]
    assert "Every bound of profile 'lossy' is met" in page.text
    assert "must not be trusted" not in page.text + markdown


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"max_abs_error": 0.5}, "largest error, int8: 3, allowed 2"),
        ({"min_argmax_agreement": 0.9}, "same class, at least: 87.5 %, allowed 90.0 %"),
        ({"max_accuracy_drop": 0.1}, "accuracy lost, at most: 12.5 %, allowed 10.0 %"),
        ({"min_stream_agreement": 0.99}, "same class in a stream, at least: 98.8 %, allowed 99.0 %"),
    ],
)
def test_a_bound_that_is_not_met_is_said_first(bound: dict[str, float], said: str, tmp_path: Path) -> None:
    page, text, markdown = written(tmp_path, profile=PROFILE.model_copy(update=bound))
    for found in (page.text, markdown):
        assert f"It must not be trusted. Out of bounds: {said}." in found
        assert "Every bound" not in found
    assert '<p class="bad">' in text
    assert sum(row[-1] == "NO" for row in page.rows) == 1


def test_another_engine_is_held_to_the_answers_of_the_graph_that_ships(tmp_path: Path) -> None:
    there, off = INT8 + np.float32(0.25), INT8.copy()
    off[0, 0] = np.nan
    for logits, row in ((there, ["0.25", "0.4", "yes"]), (off, ["∞", "0.4", "NO"])):
        engine = Answers(ANSWERS[-1].figures.model_copy(update={"stage": "ncnn"}), logits, 1.0)
        profile = PROFILE.model_copy(update={"max_engine_error": 0.1})
        page, _, _ = written(tmp_path, profile=profile, answers=(*ANSWERS, engine))
        assert page.row("largest error, int8") == ["3", "4", "yes"]
        assert page.row("largest difference, ncnn from ONNX Runtime") == row


def test_a_float32_graph_is_held_to_the_bound_of_what_ships(tmp_path: Path) -> None:
    profile = PROFILE.model_copy(update={"precision": "fp32", "max_abs_error": 2e-5})
    page, _, _ = written(tmp_path, profile=profile, answers=ANSWERS[:2], layers=())
    assert page.row("largest error, onnx") == ["0", "8e-05", "yes"]


def test_layers_are_drawn_in_order_and_the_worst_is_named(report: tuple[Page, str, str]) -> None:
    page, text, markdown = report
    assert "Most error is added by backbone.conv2/Conv (0.248), backbone.conv1/Conv (0.002)." in page.text
    places = [text.index(f"</title>{layer.name}<") for layer in LAYERS]
    assert places == sorted(places)
    assert "| backbone.conv2/Conv | 0.25 | 0.248 | 7e+04 | yes |" in markdown
    assert text.count('class="accent hollow"') == 1  # the one in float32
    assert page.row("backbone.conv2/Conv") == ["overflows"]
    assert "16 frames of 2 training clips of odd_even (method entropy)" in page.text


def test_classes_that_changed_and_what_is_taken_for_what(report: tuple[Page, str, str]) -> None:
    page, _, _ = report
    assert "1 of 8 clips get another class than from the trained model; 1 of 3 classes" in page.text
    assert page.row("wave", "2") == ["100.0 %", "50.0 %", "-50.0 points"]
    assert page.row("wave", LABELS[1]) == ["2", "0", "1"]
    assert page.row(LABELS[2], "wave") == ["4", "1", "1"]
    assert page.text.count("Rows are the truth") == 2


def test_confusions_that_are_alike_are_drawn_once(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, answers=(ANSWERS[0], ANSWERS[1]))
    assert page.text.count("Rows are the truth") == 1
    assert "0 of 8 clips" in page.text


def test_reliability_is_shown_before_and_after_the_temperature(report: tuple[Page, str, str]) -> None:
    page, _, markdown = report
    before = metrics.expected_calibration_error(metrics.softmax(INT8), TRUTH)
    after = metrics.expected_calibration_error(metrics.softmax(INT8, 2.0), TRUTH)
    assert f"{100 * before:.1f} % at temperature 1, {100 * after:.1f} % at temperature 2" in page.text
    # exp(4) / (exp(4) + 2) = 96.5 %: seven clips, six of them right; at temperature 2, 78.7 %
    assert "| 93 to 100 % | 7 | 96.5 % | 85.7 % | 0 |  |  |" in markdown
    assert "| 73 to 80 % | 0 |  |  | 7 | 78.7 % | 85.7 % |" in markdown
    assert "7 clips, mean confidence 96.5%, right 85.7%" in page.text


def test_a_student_that_is_not_calibrated_says_so_first(tmp_path: Path, report: tuple[Page, str, str]) -> None:
    bare = MANIFEST.model_copy(update={"calibrated_on": "", "temperature": 1.0, "unknown_threshold": 0.0})
    page, text, markdown = written(tmp_path, bare)
    assert "UNCALIBRATED" in page.text
    assert "UNCALIBRATED" in markdown.split("\n## ")[1]
    assert '<p class="warning">UNCALIBRATED' in text
    calibrated = report[0].text
    assert "UNCALIBRATED" not in calibrated
    assert (
        "calibrated on validation clips of subject s7: temperature 2, below 45.0 % the answer is 'unknown'"
        in calibrated
    )


def test_file_and_versions_are_named(report: tuple[Page, str, str]) -> None:
    page, _, _ = report
    assert page.row("size") == ["11.9 MB (11,900,000 bytes)"]
    assert page.row("compared on") == ["8 validation clips (subjects s7)"]
    assert page.row("version of torch") == ["9.8.7"]


def test_of_many_classes_the_worst_pairs_are_enough(tmp_path: Path) -> None:
    labels, truth = tuple(f"class {k}" for k in range(61)), np.arange(61)
    logits = np.eye(61, dtype=np.float32)[(truth + (truth == 7)) % 61]
    figures = PARITY.stages[0].model_copy(update={"per_class": tuple(float(k != 7) for k in range(61))})
    answers = [Answers(figures, logits, 1.0)] * 2
    page, _, _ = written(tmp_path, MANIFEST.model_copy(update={"labels": labels}), truth=truth, answers=answers)
    assert page.row("class 7", "class 8") == ["1", "1", "1"]
    assert "Rows are the truth" not in page.text


def test_errors_of_any_size_can_be_drawn(tmp_path: Path) -> None:
    layers = [LayerError(f"n{i}/Conv", "Conv", error, 0.0, 1.0) for i, error in enumerate((0.0, 1e-9, 3.0, math.inf))]
    page, text, _ = written(tmp_path, layers=layers)
    assert "∞" in page.text
    numbers = [float(value) for name, value in page.attributes if name in ("cx", "cy", "x1", "x2", "width")]
    assert numbers
    assert all(math.isfinite(value) and value >= 0 for value in numbers)
    assert "nan" not in text


def test_a_float32_graph_has_no_layers_to_compare(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, MANIFEST.model_copy(update={"precision": "fp32"}), layers=())
    assert "Layer by layer" not in page.text


def test_where_no_layer_was_compared_what_was_kept_is_still_said(tmp_path: Path) -> None:
    page, _, _ = written(tmp_path, layers=())
    assert page.row("backbone.conv2/Conv") == ["overflows"]
    assert "Most error" not in page.text


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("write", [check_report_folder, lambda folder: written(folder)])
def test_a_file_in_the_place_of_the_folder_is_one_line(write: Callable[[Path], object], tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text("mine")
    with pytest.raises(ExportError, match=r"report is a file\. Expected a folder for the report\. Fix: .*--report$"):
        write(file)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "report").symlink_to(tmp_path / "gone")
    with pytest.raises(ExportError, match="report is not a folder"):
        check_report_folder(tmp_path / "report")


def test_asking_for_a_report_folder_makes_none(tmp_path: Path) -> None:
    check_report_folder(tmp_path / "deep" / "report")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [2, 4, 40])
def test_a_confusion_is_as_wide_as_its_title(classes: int) -> None:
    title = "trained model and what ships, 12 validation clips"
    drawn = confusion_chart(np.eye(classes, dtype=np.int64), [f"c{k}" for k in range(classes)], title)
    patterns = r' width="(\d+)"', r'class="title" x="([\d.]+)"'
    width, left = (float(re.findall(pattern, drawn)[0]) for pattern in patterns)
    assert width >= left + 7 * len(title)


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match=r"cannot be written \(Not a directory\)"):
        check_report_folder(tmp_path / "file" / "report")


def test_an_older_report_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    _, text, _ = written(tmp_path)
    assert text.startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "report.html", "report.md"]


def test_a_disk_that_is_full_leaves_the_older_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ExportError, match=r"No space left on device.*--report"):
        written(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_what_was_not_compared_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="without a comparison"):
        written(tmp_path / "report", MANIFEST.model_copy(update={"parity": None}))
    assert not (tmp_path / "report").exists()
