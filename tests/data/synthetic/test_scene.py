"""What each band can tell apart: properties of the looks drawn and of the pictures painted with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kd_edge.data.synthetic.actions import Manner, perform
from kd_edge.data.synthetic.dataset import Synthetic, generator
from kd_edge.data.synthetic.figure import Body
from kd_edge.data.synthetic.render import Film
from kd_edge.data.synthetic.scene import MATERIALS, OBJECT_COLOURS, Camera, Look

KINDS = [MATERIALS.index(kind) for kind in OBJECT_COLOURS]


@pytest.fixture(scope="module")
def looks() -> list[Look]:
    rng = generator("test", "looks")
    return [Look.draw(rng, distance=2.5) for _ in range(300)]


def told_apart(values: np.ndarray) -> float:
    """Share of (looks, kinds, channels) values that are nearest to the mean of their own kind."""
    distances = np.linalg.norm(values[:, :, None] - values.mean(axis=0), axis=-1)  # (looks, kinds, kinds)
    return float((distances.argmin(axis=-1) == np.arange(values.shape[1])).mean())


def test_colour_tells_objects_apart_and_infrared_reflectance_does_not(looks: list[Look]) -> None:
    assert told_apart(np.stack([look.colours[KINDS] for look in looks])) > 0.98
    assert told_apart(np.stack([look.reflectances[KINDS, None] for look in looks])) < 0.35  # 0.17 by chance


def test_sleeves_and_trunk_differ_in_visible_light_and_are_one_cloth_in_the_infrared(looks: list[Look]) -> None:
    shirt, arm, skin, trousers = (MATERIALS.index(name) for name in ("shirt", "arm", "skin", "trousers"))
    for a, b, apart in ((shirt, arm, 0.3), (arm, skin, 0.2), (shirt, trousers, 0.3)):
        visible = np.median([np.linalg.norm(look.colours[a] - look.colours[b]) for look in looks])
        infrared = np.median([abs(look.reflectances[a] - look.reflectances[b]) for look in looks])
        assert visible > apart
        assert infrared < 0.1


def still(seed: int, **changes: object) -> Film:
    """Somebody who stands still in steady light, eight frames."""
    rng = generator("test", "still", seed)
    body, camera = Body.draw(rng), Camera.draw(rng, "front")
    look = replace(Look.draw(rng, distance=camera.distance), flicker=0.0, **changes)
    performance = perform("clap", body, Manner.draw(rng, "clap"), np.full(8, -1.0))
    return Film(performance, body, look, camera, 120, 160, 30, seed)


def test_the_infrared_picture_is_noisier() -> None:
    """Standard deviation over time, in per cent of the picture's own range."""

    def noise(frames: np.ndarray) -> float:
        low, high = np.percentile(frames, (1, 99))
        return float(100 * frames.std(axis=0).mean() / (high - low))

    pictures = [
        (np.stack([f.rgb(k) for k in range(8)]), np.stack([f.nir(k) for k in range(8)])) for f in map(still, range(12))
    ]
    visible, infrared = np.median([[noise(rgb), noise(nir)] for rgb, nir in pictures], axis=0)
    assert visible < 2
    assert infrared > 2 * visible


def test_the_infrared_picture_is_coarser() -> None:
    """Without noise: the steepest edges, as a share of the picture's own range from one pixel to the next."""

    def steepest(image: np.ndarray) -> float:
        grey = image.astype(np.float64)
        low, high = np.percentile(grey, (1, 99))
        return float(np.percentile(np.abs(np.diff(grey)), 99) / (high - low))

    films = [still(seed, shot=0.0, read=0.0) for seed in range(12)]
    visible, infrared = np.median([[steepest(f.rgb(0).mean(axis=-1)), steepest(f.nir(0))] for f in films], axis=0)
    assert infrared < 0.6 * visible


def test_the_illuminator_falls_off_towards_the_corners() -> None:
    """A corner of the wall against the wall's middle at the same height, over rooms."""
    ratios = []
    for seed in range(12):
        film = still(seed, shot=0.0, read=0.0)
        nir, rgb = film.nir(0).astype(np.float64), film.rgb(0).astype(np.float64).mean(axis=-1)
        ratios.append([band[:12, :12].mean() / band[:12, 74:86].mean() for band in (nir, rgb)])
    infrared, visible = np.median(ratios, axis=0)
    assert infrared == pytest.approx(1.8 / 2.6, abs=0.08)  # 1 + 0.8 y^2 against 1 + 0.8 (x^2 + y^2)
    assert visible == pytest.approx(1.0, abs=0.1)


def test_a_session_looks_the_same_in_all_actions() -> None:
    """Same clothes, room and camera: nothing but the action tells the classes of a session apart."""
    dataset = Synthetic(clips_per_class=4, subjects=2, height_px=60, width_px=80, fps=15.0)
    for trial in ("1", "2"):
        session = [s for s in dataset.samples if s.subject == "1" and s.trial == trial]
        assert len(session) == 10
        films = [dataset.film(s) for s in session]
        assert len({s.view for s in session}) == 1
        assert len({f._room.rgb.tobytes() for f in films}) == 1
        assert len({len(f) for f in films}) > 1
