#!/usr/bin/env python3
"""False alarms on good pictures, and how soon each fault of a camera is noticed, through the real recogniser.

    python tools/bench_health.py kd_edge/bundled.onnx
    python tools/bench_health.py old.onnx --fit new.onnx      # first write the artifact again with newly fitted bounds

Good pictures are the generated figure's, 640x480, 30 a second, of people no model was trained on; faults are put over
them, and over people again other than those. A fault begins 3.5 s after the start and lasts 4 s: "noticed" is the
median and the longest time from its first picture to the last label that is ``ok``, "still ok" and the rest are of its
last second. The artifact must be of the band ``nir`` or ``rgb``.
"""

from __future__ import annotations

import argparse
import collections
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from kd_edge.artifact import load
from kd_edge.data import DataConfig, open_dataset
from kd_edge.data.synthetic.dataset import SyntheticStream
from kd_edge.export.health import refit
from kd_edge.runtime import Recognizer
from kd_edge.types import LabelState, Prediction

Picture = npt.NDArray[np.uint8]
Fault = Callable[[Picture, np.random.Generator], npt.NDArray[Any]]
PERIOD_NS = 33_333_333
BEFORE, FAULTY = 105, 120  # frames
FAULTS: dict[str, Fault] = {
    "covered lens: dark, sensor noise": lambda f, r: 6 + r.normal(0, 2, f.shape),
    "all black": lambda f, r: np.zeros_like(f),
    "uniform grey": lambda f, r: np.full_like(f, 128),
    "uniform grey, noise of 20": lambda f, r: 128 + r.normal(0, 20, f.shape),
    "uniform grey, noise of 60": lambda f, r: 128 + r.normal(0, 60, f.shape),
    "saturated": lambda f, r: np.full_like(f, 255),
    "noise on black": lambda f, r: np.abs(r.normal(0, 12, f.shape)),
    "noise on white": lambda f, r: 255 - np.abs(r.normal(0, 12, f.shape)),
    "noise of every value": lambda f, r: r.integers(0, 256, f.shape),
    "picture under noise of 80": lambda f, r: f + r.normal(0, 80, f.shape),
    "picture under noise of 160": lambda f, r: f + r.normal(0, 160, f.shape),
    "defocus, Gaussian of 6 px": lambda f, r: cv2.GaussianBlur(f, (0, 0), 6),
    "defocus, Gaussian of 10 px": lambda f, r: cv2.GaussianBlur(f, (0, 0), 10),
    "defocus, Gaussian of 16 px": lambda f, r: cv2.GaussianBlur(f, (0, 0), 16),
    "half overexposed": lambda f, r: (
        f + np.uint16(255) * (np.arange(f.shape[1]) < f.shape[1] // 2).reshape((1, -1) + (1,) * (f.ndim - 2))
    ),
    "a quarter of the light": lambda f, r: f / 4,
    "a twelfth of the light": lambda f, r: f / 12,
    "upside down": lambda f, r: f[::-1],
    "negative": lambda f, r: 255 - f,
}


def pushed(recognizer: Recognizer, frames: Iterator[Picture]) -> Iterator[Prediction]:
    """Predictions of a source that begins with these frames."""
    recognizer.forget("measured")
    for number, frame in enumerate(frames):
        prediction = recognizer.push(frame, (number + 1) * PERIOD_NS, source="measured")
        if prediction is not None:
            yield prediction


def faulty(stream: SyntheticStream, fault: Fault | None) -> Iterator[Picture]:
    """Good frames and then faulty ones; no fault repeats the last good one."""
    rng = np.random.default_rng(0)
    for k in range(BEFORE + FAULTY):
        frame = stream.frame(k if fault is not None else min(k, BEFORE))[0]
        if fault is not None and k >= BEFORE:
            frame = np.clip(np.round(fault(frame, rng)), 0, 255).astype(np.uint8)
        yield frame


def share(counts: collections.Counter[str], total: int) -> str:
    """The commonest few with their share."""
    return ", ".join(f"{name} {count / total:.1%}" for name, count in counts.most_common(4)) or "-"


def false_alarms(recognizer: Recognizer, modality: str, seeds: range, seconds: float) -> None:
    """Print the share of good frames that are not ``ok``, by state and reason."""
    counts: collections.Counter[str] = collections.Counter()
    worst, total = 0.0, 0
    for seed in seeds:
        stream = SyntheticStream(modality, seed=seed)
        frames = (stream.frame(k)[0] for k in range(round(seconds * 30)))
        for prediction in pushed(recognizer, frames):
            if prediction.state is not LabelState.WARMING and prediction.detail[:9] != "a segment":
                total += 1
                worst = max(worst, prediction.anomaly or 0.0)
                if prediction.state is not LabelState.OK:
                    counts[f"{prediction.state} {prediction.reason}"] += 1
    print(f"good pictures, {len(seeds)} people, {total} labels: not ok {counts.total() / total:.2%}", end="")
    print(f" ({share(counts, total)}); largest anomaly {worst:.2f}", flush=True)


def noticed(recognizer: Recognizer, modality: str, seeds: range, fault: Fault | None) -> tuple[str, str, str, str]:
    """Time to notice, labels that were ``ok`` in the last second of a fault, states and reasons there, anomaly."""
    times, last, oks, anomalies = [], collections.Counter[str](), 0, []
    for seed in seeds:
        predictions = list(pushed(recognizer, faulty(SyntheticStream(modality, seed=seed), fault)))[-FAULTY:]
        ok = [k for k, p in enumerate(predictions) if p.state is LabelState.OK]
        times.append((max(ok, default=-1) + 1) * PERIOD_NS / 1e6)
        late = predictions[-30:]
        oks += sum(p.state is LabelState.OK for p in late)
        last.update(f"{p.state} {p.reason}" for p in late if p.state is not LabelState.OK)
        anomalies += [p.anomaly for p in late if p.anomaly is not None]
    total = 30 * len(seeds)
    return (
        f"{np.median(times):.0f} / {max(times):.0f}" if oks < total else "never",
        f"{oks / total:.0%}",
        f"{np.median(anomalies):.2f}" if anomalies else "-",
        share(last, total),
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an artifact, a streaming step")
    parser.add_argument("--fit", type=Path, metavar="OUT", help="fit its bounds again, write it here and measure that")
    parser.add_argument("--data", type=Path, help="folder with the recordings it was trained on, for --fit")
    parser.add_argument("--people", type=int, default=12, help="of the good pictures; faults are shown with a third")
    parser.add_argument("--seconds", type=float, default=40.0, help="of good pictures, each")
    options = parser.parse_args()
    model = options.model
    if options.fit is not None:
        artifact = load(model)
        dataset = open_dataset(TypeAdapter(DataConfig).validate_python(artifact.manifest.dataset), options.data)
        refit(artifact, dataset, options.fit)
        model = options.fit
    with Recognizer.load(model) as recognizer:
        manifest = recognizer.manifest
        modality = "rgb" if manifest.preprocess.channels == 3 else "nir"
        if manifest.health is not None:
            print(manifest.health.model_dump_json())
        false_alarms(recognizer, modality, range(1000, 1000 + options.people), options.seconds)
        seeds = range(2000, 2000 + max(1, options.people // 3))
        print(f"{'fault':<34}{'noticed, ms':>14}{'still ok':>10}{'anomaly':>9}  in its last second")
        for name, fault in itertools.chain(FAULTS.items(), [("frozen picture", None)]):
            time, oks, anomaly, states = noticed(recognizer, modality, seeds, fault)
            print(f"{name:<34}{time:>14}{oks:>10}{anomaly:>9}  {states}", flush=True)


if __name__ == "__main__":
    main()
