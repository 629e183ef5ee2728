"""Faults of a camera, put over generated pictures, through the student that ships."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import BUNDLED
from kd_edge.data.synthetic.dataset import SyntheticStream
from kd_edge.health import LOOK_NS, Familiarity, FeatureReference, PictureBounds
from kd_edge.runtime import Recognizer
from kd_edge.runtime.source import SourceState
from kd_edge.types import LabelState, Prediction, Reason

PERIOD_NS = 33_333_333
GOOD_FRAMES = 80  # the window is full after 74
NOTICED_MS = 300
STATIC_MS = 1300
NOISE = np.random.default_rng(0).normal(0, 1, (3, 240, 320))
FAULTS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], set[Reason]]] = {
    "covered": (lambda f, n: 6 + 2 * n, {Reason.DARK}),
    "black": (lambda f, n: 0 * f, {Reason.DARK}),
    "grey": (lambda f, n: 0 * f + 128, {Reason.FLAT}),
    "grey, noise": (lambda f, n: 128 + 60 * n, {Reason.NOISE}),
    "white": (lambda f, n: 0 * f + 255, {Reason.SATURATED}),
    "noise on black": (lambda f, n: abs(12 * n), {Reason.DARK, Reason.FLAT}),
    "noise on white": (lambda f, n: 255 - abs(12 * n), {Reason.SATURATED, Reason.FLAT}),
    "noise over all": (lambda f, n: f + 160 * n, {Reason.NOISE, Reason.SATURATED}),
    "defocus": (lambda f, n: cv2.GaussianBlur(f, (0, 0), 6), {Reason.BLURRED}),
    "half overexposed": (lambda f, n: f + 255 * (np.arange(320) < 160), {Reason.SATURATED}),
}


@pytest.fixture(scope="module")
def recognizer() -> Iterator[Recognizer]:
    """The student without its threshold: this is about pictures, not about how sure it is of an action."""
    bundled = artifact.load(BUNDLED)
    manifest = bundled.manifest.model_copy(update={"unknown_threshold": 0.0})
    with Recognizer.load(replace(bundled, manifest=manifest), self_test="off") as opened:
        yield opened


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    stream = SyntheticStream("nir", seed=1000, height=240, width=320)
    return [stream.frame(k)[0] for k in range(300)]


def pushed(recognizer: Recognizer, frames: list[np.ndarray]) -> list[Prediction]:
    recognizer.forget("camera")
    predictions = [recognizer.push(frame, (k + 1) * PERIOD_NS) for k, frame in enumerate(frames)]
    return [p for p in predictions if p is not None]


def test_good_pictures_are_ok(recognizer, good):
    states = Counter(p.state for p in pushed(recognizer, good))
    assert states[LabelState.OK] > 0.98 * (len(good) - GOOD_FRAMES)
    assert states.keys() <= {LabelState.WARMING, LabelState.OK, LabelState.UNKNOWN, LabelState.DEGRADED}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_is_ok(recognizer, good, fault):
    spoil, reasons = FAULTS[fault]
    bad = [
        np.clip(np.round(spoil(frame.astype(np.float64), NOISE[k % 3])), 0, 255).astype(np.uint8)
        for k, frame in enumerate(good[GOOD_FRAMES : GOOD_FRAMES + 24])
    ]
    predictions = pushed(recognizer, good[:GOOD_FRAMES] + bad)
    assert predictions[GOOD_FRAMES - 1].state is LabelState.OK
    late = predictions[GOOD_FRAMES + round(NOTICED_MS * 1e6 / PERIOD_NS) :]
    assert {p.reason for p in late} <= reasons
    assert not [p for p in late if p.state is LabelState.OK]
    if fault not in ("defocus", "half overexposed"):  # where there is something to see
        assert {p.label for p in late} == {None}


def test_a_frozen_picture_is_static(recognizer, good):
    predictions = pushed(recognizer, good[:GOOD_FRAMES] + [good[GOOD_FRAMES]] * 45)
    late = predictions[GOOD_FRAMES + round(STATIC_MS * 1e6 / PERIOD_NS) :]
    assert {(p.state, p.reason, p.label) for p in late} == {(LabelState.UNKNOWN, Reason.STATIC, None)}


def test_what_is_no_scene_of_training_is_unfamiliar(recognizer, good):
    last = pushed(recognizer, [255 - frame for frame in good[:150]])[-1]
    assert (last.state, last.reason, last.label) == (LabelState.UNKNOWN, Reason.UNFAMILIAR, None)
    assert last.anomaly is not None
    assert last.anomaly > 1


def test_a_window_is_scored_when_its_newest_picture_is_looked_at(recognizer, good, monkeypatch):
    scores, score = [], Familiarity.score
    monkeypatch.setattr(Familiarity, "score", lambda *args: scores.append(score(*args)) or scores[-1])
    monkeypatch.setattr(recognizer, "_smooth_ns", 0)
    labelled = [p for p in pushed(recognizer, good[: GOOD_FRAMES + 40]) if p.anomaly is not None]
    assert len(labelled) > 20
    assert len(scores) <= len(labelled) // 3 + 2
    assert {p.anomaly for p in labelled} == set(scores)
    changes = [k for k in range(1, len(labelled)) if labelled[k].anomaly != labelled[k - 1].anomaly]
    assert max(np.diff(changes)) * PERIOD_NS <= 2 * LOOK_NS


def test_one_strange_window_makes_every_label_unknown_that_is_of_it(recognizer, good, monkeypatch):
    scores = itertools.chain([0.5] * 3, [1.5], itertools.repeat(0.5))
    monkeypatch.setattr(Familiarity, "score", lambda *args: next(scores))
    labelled = [p for p in pushed(recognizer, good[: GOOD_FRAMES + 60]) if p.anomaly is not None]
    strange = [k for k, p in enumerate(labelled) if p.anomaly == 1.5]
    assert {labelled[k].reason for k in strange} == {Reason.UNFAMILIAR}
    assert strange == list(range(strange[0], strange[-1] + 1))
    spacing_frames = recognizer.manifest.spacing_ns / PERIOD_NS
    assert spacing_frames <= len(strange) <= spacing_frames + 2 * LOOK_NS / PERIOD_NS + 1
    assert labelled[strange[-1] + 1].reason is not Reason.UNFAMILIAR


def test_no_label_while_the_window_holds_a_bad_picture_and_ok_afterwards(recognizer, good):
    black = [np.zeros_like(good[0])] * 15
    predictions = pushed(recognizer, good[:GOOD_FRAMES] + black + good[GOOD_FRAMES : GOOD_FRAMES + 90])
    after = predictions[GOOD_FRAMES + len(black) :]
    window = round((2.3 + 2.3 / 8 + 0.14) * 1e9 / PERIOD_NS)  # a window counts for one segment spacing
    assert {(p.state, p.reason) for p in after[: window - 4]} == {(LabelState.UNKNOWN, Reason.DARK)}
    assert Reason.DARK not in {p.reason for p in after[window + 2 :]}
    assert LabelState.OK in {p.state for p in after[window + 2 : window + 12]}


def test_reset_forgets_the_pictures_too(recognizer, good):
    pushed(recognizer, [np.zeros_like(good[0])] * 30)
    recognizer.reset()
    predictions = [recognizer.push(frame, (k + 100) * PERIOD_NS) for k, frame in enumerate(good[: GOOD_FRAMES + 3])]
    assert predictions[-1] is not None
    assert predictions[-1].state is LabelState.OK


def bounds(**changes: float) -> PictureBounds:
    loose: dict[str, float] = {"mean": 0, "contrast": 0, "saturated": 1, "measured": 0, "grain": 99, "sharpness": 0}
    return PictureBounds(**(loose | {"noise": 99} | changes), moves=False, saturation=255, clips=1, frames=1)


def test_a_model_without_bounds_judges_nothing(make_model, noise):
    path, _ = make_model()
    with Recognizer.load(path) as bare:
        last = pushed(bare, [np.zeros((24, 32), np.uint8)] * 60)[-1]
    assert (last.state, last.anomaly) == (LabelState.OK, None)


def test_doubtful_pictures_are_degraded_and_keep_their_label(make_model, noise):
    path, _ = make_model(health=bounds(mean=250))
    with Recognizer.load(path) as strict:
        last = pushed(strict, list(noise(60)))[-1]
    assert (last.state, last.reason) == (LabelState.DEGRADED, Reason.DARK)
    assert last.label is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_covered_depth_or_colour_camera(make_model, noise, channels):
    from kd_edge.preprocess import Preprocess
    from kd_edge.window import PercentileWindow

    shape, dtype = ((24, 32), "uint16") if channels == 1 else ((24, 32, 3), "uint8")
    window = PercentileWindow(ignore_value=0)
    spec = Preprocess(channels=channels, resize_px=16, input_px=16, window=window)
    judged = bounds(measured=0.4).model_copy(update={"ignore_value": 0})
    path, _ = make_model(preprocess=spec, dtype=dtype, value_range=(0, 4000), health=judged)
    with Recognizer.load(path) as strict:
        predictions = pushed(strict, [*(noise(60, shape, dtype) + 1), *np.zeros((10, *shape), dtype)])
    assert predictions[59].state is LabelState.OK
    assert (predictions[-1].state, predictions[-1].reason) == (LabelState.UNKNOWN, Reason.DARK)


def test_an_unfamiliar_window_names_the_picture_where_that_is_bad_too(make_model, noise):
    far = FeatureReference.of(
        np.full((1, 5), 1e4, np.float32), np.ones(5, np.float32), np.zeros((0, 5)), np.zeros(0), 1.0
    )
    for health, reason in ((None, Reason.UNFAMILIAR), (bounds(mean=250), Reason.DARK)):
        path, _ = make_model(familiar=far, health=health)
        with Recognizer.load(path) as strict:
            last = pushed(strict, list(noise(60)))[-1]
        assert (last.state, last.reason, last.label) == (LabelState.UNKNOWN, reason, None)


def test_a_window_is_scored_ten_times_a_second_and_at_once_after_a_restart(make_model, noise, monkeypatch):
    scored = []
    monkeypatch.setattr("kd_edge.health.Familiarity.score", lambda self, past, feature: scored.append(1) or 0.25)
    near = FeatureReference.of(np.zeros((1, 5), np.float32), np.ones(5, np.float32), np.zeros((0, 5)), np.zeros(0), 1.0)
    path, _ = make_model(familiar=near)
    with Recognizer.load(path) as strict:
        labelled = [p for p in pushed(strict, list(noise(40))) if p.state is LabelState.OK]
        assert {p.anomaly for p in labelled} == {0.25}
        assert len(scored) == -(-len(labelled) // 3)
        strict.reset()
        scored.clear()
        for k, frame in enumerate(noise(40)):
            last = strict.push(frame, 10**10 + k * 10_000_000)
            if last is not None and last.anomaly is not None:
                break
    assert len(scored) == 1


def test_sources_are_judged_apart_and_memory_is_fixed(make_model, noise):
    manifest = artifact.load(make_model(health=bounds(mean=20))[0]).manifest
    one, other = SourceState(manifest), SourceState(manifest)
    for k, frame in enumerate(noise(5)):
        one.observe(0 * frame, k * 100_000_000)
        other.observe(frame, k * 100_000_000)
    assert (one.finding.cause.reason, other.finding.cause.reason) == (Reason.DARK, Reason.NONE)


def test_the_bundled_file_stays_small():
    assert Path(BUNDLED).stat().st_size < 3_000_000
