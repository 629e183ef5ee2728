from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from kd_edge.data.dataset import SignalFormat, Wearables
from kd_edge.data.synthetic import figure as f
from kd_edge.data.synthetic.actions import Manner, perform
from kd_edge.data.synthetic.dataset import Synthetic, SyntheticStream, generator
from kd_edge.data.synthetic.figure import Body
from kd_edge.data.synthetic.render import Film
from kd_edge.data.synthetic.scene import Camera, Look, Room
from kd_edge.errors import ConfigError, DataError

SMALL = {"height_px": 60, "width_px": 80, "fps": 15.0}


@pytest.fixture(scope="module")
def dataset() -> Synthetic:
    return Synthetic(clips_per_class=8, subjects=4, **SMALL)


def test_format_and_pairing(dataset: Synthetic) -> None:
    sample = dataset.samples[0]
    rgb, nir = dataset.open(sample, "rgb"), dataset.open(sample, "nir")
    assert rgb.frames.dtype == nir.frames.dtype == np.uint8
    assert rgb.frames.shape == (*nir.frames.shape, 3)
    assert nir.frames.shape[1:] == (60, 80)
    assert np.array_equal(rgb.stamps_ns, nir.stamps_ns)
    assert np.diff(nir.stamps_ns) == pytest.approx(1e9 / 15, abs=1)
    assert (dataset.image_format("nir").band, dataset.image_format("nir").channels) == ("nir", 1)
    assert (dataset.image_format("rgb").band, dataset.image_format("rgb").channels) == ("rgb", 3)
    with pytest.raises(DataError, match="no modality 'depth'"):
        dataset.open(sample, "depth")


@pytest.mark.slow
def test_both_bands_show_the_same_motion() -> None:
    """Where something moves in one band, it moves in the other, over all actions."""
    dataset = Synthetic(clips_per_class=1, subjects=1, seed=3, height_px=120, width_px=160, fps=10)
    overlaps = []
    for sample in dataset.samples:
        moved = []
        for modality in ("rgb", "nir"):
            frames = dataset.open(sample, modality).frames.astype(np.float32)
            frames = frames.mean(axis=-1) if frames.ndim == 4 else frames
            half = len(frames) // 2
            change = np.abs(frames[half - 3 : half + 3] - np.median(frames, axis=0)).mean(axis=0)
            moved.append(change > np.quantile(change, 0.98))
        overlaps.append((moved[0] & moved[1]).sum() / moved[0].sum())
    assert np.median(overlaps) > 0.15  # 0.02 by chance; noise moves in the infrared, too


def test_infrared_falls_with_the_squared_distance_and_visible_light_does_not() -> None:
    """A figure that comes from 3 m to 2 m gets (3/2)^2 = 2.25 times as bright in the infrared."""
    rng = generator("test", "distance")
    body, camera = Body.draw(rng), Camera(3.0, 0.0, 1.0, 0.0, 0.75)
    drawn = Look.draw(rng, distance=3.0)
    plain = np.full_like(drawn.colours, 0.5)
    look = replace(
        drawn, colours=plain, reflectances=plain[:, 0], shot=0.0, read=0.0, illumination=160.0, stripes=0,
        brightness=1.0, flicker=0.0, tint=np.ones(3), phases=np.zeros(4),
    )  # fmt: skip
    there = perform("clap", body, Manner.draw(rng, "clap"), np.array([-1.0]))
    here = replace(there, joints=there.joints + np.array([0.0, 0.0, 1.0]))
    far, near = (Film(p, body, look, camera, 240, 320, 30, 0) for p in (there, here))
    chest = slice(100, 108), slice(158, 163)
    infrared = near.nir(0)[chest].mean() / far.nir(0)[chest].mean()
    assert infrared == pytest.approx(2.25, rel=0.08)  # the chest is a little nearer than the feet
    assert near.rgb(0)[chest].mean() / far.rgb(0)[chest].mean() == pytest.approx(1.0, abs=0.02)


def test_clips_depend_on_seed_and_id_alone(dataset: Synthetic) -> None:
    sample = dataset.samples[11]
    alone = Synthetic(clips_per_class=8, subjects=4, **SMALL).open(sample, "rgb")
    assert np.array_equal(alone.frames, dataset.open(sample, "rgb").frames)
    other = Synthetic(clips_per_class=8, subjects=4, seed=1, **SMALL)
    assert other.content_key(sample, "rgb") != dataset.content_key(sample, "rgb")
    first = other.open(sample, "rgb").frames
    assert first.shape != alone.frames.shape or not np.array_equal(first, alone.frames)


@pytest.mark.slow
def test_another_process_paints_the_same_bits(dataset: Synthetic) -> None:
    code = (
        "import hashlib; from kd_edge.data.synthetic.dataset import *\n"
        f"d = Synthetic(clips_per_class=8, subjects=4, **{SMALL!r})\n"
        "clips = (d.open(d.samples[i], m) for i in (5, 42) for m in ('rgb', 'nir'))\n"
        "print(*(hashlib.sha256(clip.frames).hexdigest() for clip in clips))\n"
        "print(hashlib.sha256(SyntheticStream(height=60, width=80).frame(200)[0]).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [
        hashlib.sha256(dataset.open(dataset.samples[i], m).frames).hexdigest() for i in (5, 42) for m in ("rgb", "nir")
    ]
    here.append(hashlib.sha256(SyntheticStream(height=60, width=80).frame(200)[0]).hexdigest())
    assert done.stdout.split() == here


def test_the_figure_wears_sensors(dataset: Synthetic) -> None:
    assert isinstance(dataset, Wearables)
    assert dataset.modalities == ("rgb", "nir", "skeleton", "accelerometer", "gyroscope", "accelerometer_phone")
    assert dataset.sensors == ("accelerometer", "gyroscope", "accelerometer_phone")
    sample = dataset.samples[3]
    seconds = dataset.open(sample, "nir").seconds
    for sensor in dataset.sensors:
        clip = dataset.open(sample, sensor)
        assert clip.frames.dtype == np.float32
        assert clip.frames.shape == (len(clip), 3)
        assert np.diff(clip.stamps_ns).tolist() == [10_000_000] * (len(clip) - 1)
        assert 0 <= seconds - clip.seconds < 0.011
        low, high = dataset.signal_format(sensor).value_range
        assert low <= clip.frames.min() < clip.frames.max() <= high
        with pytest.raises(DataError, match="is a signal"):
            dataset.image_format(sensor)
    assert dataset.signal_format("gyroscope") == SignalFormat("degree/s", (-1000.0, 1000.0), 100.0)
    with pytest.raises(DataError, match="did you mean 'gyroscope'"):
        dataset.signal_format("gyroskope")
    with pytest.raises(DataError, match="no modality 'rgb'"):
        dataset.signal_format("rgb")


def test_joints_lie_where_the_pictures_show_them(dataset: Synthetic) -> None:
    """A figure in white before black is bright where its head falls, by the camera's own numbers."""
    sample = dataset.samples[20]
    skeleton, nir = dataset.open(sample, "skeleton"), dataset.open(sample, "nir")
    assert skeleton.frames.dtype == np.float32
    assert skeleton.frames.shape == (len(nir), 20, 3)
    assert np.array_equal(skeleton.stamps_ns, nir.stamps_ns)
    take = dataset._take(sample)
    x, y, z = skeleton.frames[:, f.HEAD].T.astype(np.float64)
    column = 80 / 2 + take.camera.focal * 80 * x / z  # x grows to the right, y upwards
    row = 60 / 2 - take.camera.focal * 80 * y / z
    white, black = np.ones_like(take.look.colours), 0.05
    look = replace(take.look, colours=white, reflectances=white[:, 0], shot=0.0, read=0.0, blur=0.01)
    performance = perform(take.action, take.body, take.manner, np.arange(take.frames) / 15)
    film = Film(performance, take.body, look, take.camera, 60, 80, 15.0, 0)
    film._room = Room(np.zeros((60, 80, 3), np.uint8), np.full((60, 80), round(255 * black), np.uint8))
    for k in range(0, len(nir), 10):
        assert film.nir(k)[round(row[k]), round(column[k])] > 60
    with pytest.raises(DataError, match="'skeleton' of synthetic is a signal"):
        dataset.image_format("skeleton")


def test_joints_of_a_figure_placed_by_hand() -> None:
    """Straight ahead of a camera 1 m high and 2.5 m away, not turned: the body's left is the picture's right."""
    camera = Camera(distance=2.5, yaw=0.0, height=1.0, aside=0.25, focal=0.75)
    dataset = Synthetic(clips_per_class=2, subjects=2, **SMALL)
    sample = dataset.samples[0]
    take = dataset._take(sample)._replace(camera=camera)
    dataset._take = lambda _: take  # type: ignore[method-assign]
    joints = dataset.open(sample, "skeleton").frames[0].astype(np.float64)
    body = perform(take.action, take.body, take.manner, np.zeros(1)).joints[0]  # x left, y up, z forward
    np.testing.assert_allclose(joints, body * [1, 1, -1] + [0.25, -1.0, 2.5], atol=1e-6)
    assert joints[f.L_SHOULDER, 0] > joints[f.R_SHOULDER, 0]
    assert joints[f.HEAD, 1] > joints[f.HIPS, 1] > joints[f.L_FOOT, 1]


def test_signals_depend_on_seed_and_id_alone(dataset: Synthetic) -> None:
    sample = dataset.samples[11]
    alone = Synthetic(clips_per_class=8, subjects=4, **SMALL)
    other = Synthetic(clips_per_class=8, subjects=4, seed=1, **SMALL)
    for sensor in dataset.sensors:
        assert np.array_equal(alone.open(sample, sensor).frames, dataset.open(sample, sensor).frames)
        assert not np.array_equal(other.open(sample, sensor).frames[:50], alone.open(sample, sensor).frames[:50])
        assert other.content_key(sample, sensor) != alone.content_key(sample, sensor)
    assert len({dataset.content_key(sample, m) for m in dataset.modalities}) == 6


def test_a_watch_on_a_hand_at_rest_feels_one_g(dataset: Synthetic) -> None:
    """Before somebody stands up nothing moves much: 1 g but for the sensor's faults, whatever the way it is held."""
    standing = [s for s in dataset.samples if dataset.labels[s.label] == "stand up"]
    forces = [np.linalg.norm(dataset.open(s, "accelerometer_phone").frames[:3], axis=1).mean() for s in standing]
    assert np.median(forces) == pytest.approx(1.0, abs=0.1)
    seated = [dataset.open(s, "accelerometer_phone").frames for s in standing]
    # the thigh lies while sitting and hangs while standing: gravity goes from across it to along it
    assert np.mean([f[-1, 0] for f in seated]) < -0.8
    assert np.mean([f[0, 0] for f in seated]) > -0.6


def test_pictures_of_this_version_stay_as_they_are(dataset: Synthetic) -> None:
    """Caches made before are still found: whoever changes what is painted counts up ``VERSION``, and these with it."""
    sample = dataset.samples[11]
    keys = [dataset.content_key(sample, m)[:16] for m in ("rgb", "nir")]
    assert keys == ["5ddfb75606b7105b", "b954e9f0cd346d5d"]
    assert len(dataset.open(sample, "nir")) == 54


def test_the_last_quarter_of_the_subjects_is_the_test_side(dataset: Synthetic) -> None:
    split = dataset.split("subjects")
    assert {s.subject for s in split.test} == {"4"}
    assert {s.subject for s in split.train} == {"1", "2", "3"}
    assert len(split.test) == 20
    twelve = Synthetic(clips_per_class=12, subjects=12).split("subjects")
    assert {s.subject for s in twelve.test} == {"10", "11", "12"}
    halves = dataset.split("odd_even")
    assert ({s.subject for s in halves.train}, {s.subject for s in halves.test}) == ({"1", "3"}, {"2", "4"})
    assert (len(halves.train), len(halves.test)) == (40, 40)
    odd = Synthetic(clips_per_class=5, subjects=5).split("odd_even")
    assert {s.subject for s in odd.test} == {"2", "4"}
    with pytest.raises(DataError, match="no split 'trials'"):
        dataset.split("trials")


def test_views_are_mixed_over_subjects_and_classes() -> None:
    samples = Synthetic(clips_per_class=36, subjects=12).samples
    for label in range(10):
        for subject in ("1", "7"):
            assert {s.view for s in samples if s.label == label and s.subject == subject} == {
                "front", "left45", "right45",
            }  # fmt: skip
    assert len({s.id for s in samples}) == len(samples) == 360


def test_too_few_clips_for_a_test_side_is_an_error() -> None:
    with pytest.raises(DataError, match="no training sample"):
        Synthetic(clips_per_class=1, subjects=1).split("subjects")
    with pytest.raises(DataError, match="no test sample"):
        Synthetic(clips_per_class=1, subjects=1).split("odd_even")


def test_rgb_is_lit_differently_and_never_in_the_dark() -> None:
    dataset = Synthetic(clips_per_class=12, subjects=4, **SMALL)
    means = [dataset.film(s).rgb(0).mean() for s in dataset.samples if s.label == 0]
    assert min(means) > 50
    assert max(means) > 1.4 * min(means)


@pytest.mark.parametrize("modality", ["nir", "rgb"])
def test_the_stream_is_endless_and_random_access(modality: str) -> None:
    stream = SyntheticStream(modality, seed=5, height=60, width=80, fps=10)
    ahead, truth = stream.frame(1234)
    assert ahead.shape == ((60, 80) if modality == "nir" else (60, 80, 3))
    again = SyntheticStream(modality, seed=5, height=60, width=80, fps=10)
    for k in range(1200, 1234):
        again.frame(k)
    image, name = again.frame(1234)
    assert np.array_equal(image, ahead)
    assert name == truth == stream.truth(1234)


def test_every_action_comes_once_in_a_cycle() -> None:
    stream = SyntheticStream(fps=10, height=48, width=64)
    names = [stream.truth(k) for k in range(0, 1600, 80)]
    assert sorted(names[:10]) == sorted(names[10:]) == sorted(stream.actions)
    assert [stream.truth(k) for k in range(80)] == [names[0]] * 80
    two = SyntheticStream(fps=10, actions=("clap", "throw"))
    assert {two.truth(k) for k in range(0, 800, 80)} == {"clap", "throw"}


def test_large_pictures() -> None:
    image, _ = SyntheticStream("rgb").frame(0)
    assert image.shape == (480, 640, 3)
    image, _ = SyntheticStream(height=481, width=641).frame(10)
    assert image.shape == (481, 641)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "lwir"}, "synthetic modality 'lwir'"),
        ({"actions": ("claps",)}, r"did you mean 'clap'\?"),
        ({"actions": ()}, "0 actions"),
        ({"height": 8}, "640x8"),
        ({"fps": 0.0}, "0.0 fps"),
    ],
)
def test_wrong_stream_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticStream(**options)  # type: ignore[arg-type]
