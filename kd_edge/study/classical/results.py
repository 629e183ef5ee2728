"""What every comparator's run has in common: its folder, its summary, its seed and threads."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import cv2
import torch

from kd_edge import __version__, recipes
from kd_edge.data import Dataset, Sample
from kd_edge.errors import ConfigError, DataError, TrainingError
from kd_edge.files import replacing
from kd_edge.rundir import RECIPE, SUMMARY, Protocol, StageReport, Summary, write_summary
from kd_edge.study.classical.config import RunConfig

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, in all)."""


Begin = Callable[[], None]
"""Called when the recordings are there: the run can start, and its folder is made."""


@dataclass(frozen=True)
class Fitted:
    """What a method came to.

    Attributes:
        dataset: The recordings.
        protocol: The clips.
        data_fingerprint: Fingerprint of the recordings as the method reads them.
        student: Figures and description of what was trained.
    """

    dataset: Dataset
    protocol: Protocol
    data_fingerprint: str
    student: StageReport


ConfigT = TypeVar("ConfigT", bound=RunConfig)
Fit = Callable[[ConfigT, Path | None, Begin, Progress], Fitted]
"""A method: settings, folder with the recordings, what to call when they are there, and progress -> what it came to."""


def run_method(
    fit: Fit[ConfigT], config: ConfigT, run_dir: Path, data_root: Path | None, progress: Progress | None
) -> Summary:
    """Fit and test a method; writes ``recipe.toml`` first and ``summary.json`` last, each whole or not at all.

    Args:
        fit: The method.
        config: The run.
        run_dir: Where to write; must not hold a run yet.
        data_root: Folder with the recordings.
        progress: Called as the work goes on.

    Raises:
        TrainingError: There is a finished or another run already, the folder cannot be written, or nothing can be
            learned from the clips.
        DataError: Recordings, modality, split or subjects missing.
    """
    check_free(config, run_dir)
    start = time.perf_counter()
    fitted = fit(config, data_root, lambda: write_recipe(config, run_dir), progress or silent)
    student = fitted.student.model_copy(update={"seconds": round(time.perf_counter() - start, 1)})
    contents = recordings_fingerprints(fitted.dataset, config.modalities)
    summary = summary_of(config, fitted.protocol, student, fitted.data_fingerprint, contents)
    write_summary(run_dir, summary)
    return summary


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody follows."""


def check_free(config: RunConfig, run_dir: Path) -> None:
    """An interrupted run of the same kind is started again; anything else that lies there is kept.

    Raises:
        TrainingError: There is a finished or another run.
    """
    if (run_dir / RECIPE).exists() and ((run_dir / SUMMARY).exists() or not _is_of(type(config), run_dir / RECIPE)):
        raise TrainingError(f"{run_dir} already contains a run", "a new or empty folder", "choose another one")


def _is_of(model: type[RunConfig], recipe: Path) -> bool:
    try:
        recipes.load("train", str(recipe), model)
    except ConfigError:
        return False
    return True


def write_recipe(config: RunConfig, run_dir: Path) -> None:
    """``recipe.toml``, whole or not at all."""
    with replacing(run_dir / RECIPE, TrainingError) as file:
        file.write(recipes.to_toml(config).encode())


def recordings_fingerprints(dataset: Dataset, modalities: Sequence[str]) -> dict[str, str]:
    """SHA-256 (hex) of the content of all recordings, by modality; nothing is decoded.

    Not of how a comparator reads them, which its settings say.
    """
    found = {}
    for modality in modalities:
        content = [[*astuple(sample), _content_key(dataset, sample, modality)] for sample in dataset.samples]
        text = json.dumps([dataset.name, modality, content])
        found[modality] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _content_key(dataset: Dataset, sample: Sample, modality: str) -> str:
    try:
        return dataset.content_key(sample, modality)
    except DataError:
        return "absent"


def summary_of(
    config: RunConfig,
    protocol: Protocol,
    student: StageReport,
    data_fingerprint: str,
    data_fingerprints: dict[str, str],
) -> Summary:
    """What ``summary.json`` says: as of a training run whose student is the comparator.

    Args:
        config: The run.
        protocol: The clips.
        student: Figures and description of what was trained.
        data_fingerprint: Fingerprint of the recordings as the run reads them.
        data_fingerprints: Modality -> SHA-256 (hex) of its recordings, from ``recordings_fingerprints``: a study takes
            the run as its own while they are these.
    """
    packages = ("torch", "torchvision", "numpy", "scikit-learn")
    return Summary(
        complete=True,
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        recipe=config.model_dump(mode="json"),
        protocol=protocol,
        seed=config.seed,
        stages={"student": student},
        versions={"kd-edge": __version__, "opencv": cv2.__version__} | {name: version(name) for name in packages},
        data_fingerprint=data_fingerprint,
        data_fingerprints=data_fingerprints,
        recipe_fingerprint=config.fingerprint(),
        threads=config.threads or torch.get_num_threads(),
        device=str(device()),
    )


@contextmanager
def reproducible(config: RunConfig) -> Iterator[None]:
    """The configured seed and threads; the caller's come back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        try:
            torch.set_num_threads(config.threads or threads)
            yield
        finally:
            torch.set_num_threads(threads)


def device() -> torch.device:
    """A graphics card where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
