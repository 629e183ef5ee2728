"""What a finished run's student looks at in a clip: one folder of pictures per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_edge.data import Dataset, Sample, open_dataset
from kd_edge.errors import ConfigError, DataError, TrainingError
from kd_edge.models.saved import SavedStudent
from kd_edge.pictures.cam import draw_cam
from kd_edge.pictures.gsdm import draw_gsdm
from kd_edge.pictures.sensor_maps import draw_sensor_maps
from kd_edge.pictures.signals import draw_signals
from kd_edge.pictures.view import View, find_sample, look
from kd_edge.rundir import complete_summary, read_metrics
from kd_edge.train.results.plots import plot_curves

Progress = Callable[[int, int], None]

FOLDER = "explain"
"""Name of the folder of a run directory that has one folder per sample."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What was drawn of one sample.

    Attributes:
        sample: Id of the sample.
        side: What the sample was to the student: ``training clip``, ``validation clip``, ``test clip``, or of neither
            side.
        true: Name of the sample's class.
        predicted: Name of the class that the student takes for the likeliest.
        probability: Probability of that class, in [0, 1].
        true_probability: Probability of the true class, in [0, 1].
        folder: Where the pictures lie.
        pictures: File names of the pictures.
        skipped: File name -> why there is no such picture.
    """

    sample: str
    side: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    folder: Path
    pictures: tuple[str, ...]
    skipped: dict[str, str]


def explain(
    run: Path,
    samples: Sequence[str] = (),
    *,
    wrong: int = 0,
    out: Path | None = None,
    layer: str | None = None,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Explained]:
    """Draw what a run's student sees in some samples, one clip at a time.

    ``cam.png`` always, ``gsdm.png`` where the run's recipe has vectors of the class names, ``gaf.png`` where the data
    set has wearable sensors, ``curves.png`` where the run has its metrics.

    Args:
        run: A finished run.
        samples: Ids of samples of the data set, of either side of the split.
        wrong: Number of test clips to add after them: the first, in the order of an evaluation, that the student takes
            for another class.
        out: Folder of the pictures of a single sample; several samples, or ``wrong``, have a folder each in it. None
            takes ``<run>/explain/<id>``.
        layer: Module path of the layer whose maps are drawn; None takes the last stage.
        data_root: Folder with the recordings.
        progress: Called with (test clips seen, test clips in all) while wrong ones are looked for.

    Raises:
        KdEdgeError: No finished run, no such sample (before anything is drawn), a recording that cannot be read, no
            such layer.
    """
    if not samples and wrong < 1:
        raise ConfigError("no sample to explain", "--sample ID or --wrong N", "add --wrong 3 for three mistakes")
    _check_has_network(run)
    student = SavedStudent.load(run)
    dataset = open_dataset(student.spec.data, data_root)
    skipped = student.summary.protocol.skipped
    chosen = [find_sample(dataset, name, skipped) for name in dict.fromkeys(samples)]
    base = out or student.path / FOLDER
    single = out is not None and wrong < 1 and len(chosen) == 1
    for sample in chosen:
        folder = base if single else base / folder_name(sample)
        yield _draw(look(student, dataset, sample), folder, layer, data_root)
    for view in wrong_views(student, dataset, wrong, progress):
        if view.sample not in chosen:
            yield _draw(view, base / folder_name(view.sample), layer, data_root)


def wrong_views(
    student: SavedStudent, dataset: Dataset, count: int, progress: Progress | None = None
) -> Iterator[View]:
    """The first ``count`` test clips that a student takes for another class; unreadable ones are passed over.

    Args:
        student: Student that looks at the clips.
        dataset: The recordings.
        count: Largest number of clips.
        progress: Called with (test clips seen, test clips in all).
    """
    if count < 1:
        return
    test = sorted(dataset.split(student.spec.split).test, key=lambda s: (s.subject, s.view, s.id))
    for done, sample in enumerate(test, start=1):
        try:
            view = look(student, dataset, sample)
        except DataError:
            continue
        if progress is not None:
            progress(done, len(test))
        if not view.correct:
            yield view
            count -= 1
            if count == 0:
                return


def folder_name(sample: Sample) -> str:
    """A sample's id as the name of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in sample.id).lstrip(".") or "_"


def _check_has_network(run: Path) -> None:
    """Say of a classical method's run that there is nothing to look into."""
    summary = complete_summary(run)
    if summary is None or summary.recipe.kind is None:
        return  # of a network, or no run at all, which loading it will say
    raise DataError(
        f"run {run} is of the classical method '{summary.recipe.kind}', which has no network",
        "a run of kd-edge train",
        "explain the run of a student",
    )


def _draw(view: View, folder: Path, layer: str | None, data_root: Path | None) -> Explained:
    made = {
        "cam.png": draw_cam(view, folder / "cam.png", layer),
        "gsdm.png": draw_gsdm(view, folder / "gsdm.png", layer, data_root),
        "gsdm-teachers.png": draw_sensor_maps(view, folder / "gsdm-teachers.png", data_root),
        "gaf.png": draw_signals(view, folder / "gaf.png"),
        "curves.png": _draw_curves(view.student.path, folder / "curves.png"),
    }
    return Explained(
        sample=view.sample.id,
        side=view.side,
        true=view.dataset.labels[view.sample.label],
        predicted=view.dataset.labels[view.predicted],
        probability=float(view.probabilities[view.predicted]),
        true_probability=float(view.probabilities[view.sample.label]),
        folder=folder,
        pictures=tuple(name for name, why in made.items() if not why),
        skipped={name: why for name, why in made.items() if why},
    )


def _draw_curves(run: Path, path: Path) -> str:
    try:
        lines = read_metrics(run)
    except TrainingError as error:
        return error.found
    if not lines:
        return "the run has no metrics.jsonl"
    plot_curves(lines, path)
    return ""
