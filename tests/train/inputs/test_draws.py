from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from kd_edge.crop import centre_crop, crop_pixels
from kd_edge.preprocess import cut
from kd_edge.train.inputs.draws import PLACES, SCALE_PAIRS, CropDraw, Draws, draw_crop
from kd_edge.train.recipe.augment import Augment


@pytest.mark.parametrize("crop", ["random", "multi_scale"])
@pytest.mark.parametrize("shape", [(40, 48), (36, 36), (90, 60)])
def test_crops_are_inside_whatever_the_frame(shape: tuple[int, int], crop: str) -> None:
    augment = Augment.model_validate({"crop": crop, "crop_scale": (0.4, 1.0), "flip": True})
    flips = 0
    for seed in range(200):
        draw = draw_crop(augment, np.random.default_rng(seed), Draws((seed,)))
        part = draw.on(*shape)
        if crop == "random":
            assert part.height * shape[0] == pytest.approx(part.width * shape[1])
        assert part.top >= -1e-12
        assert part.left >= -1e-12
        assert part.top + part.height <= 1 + 1e-12
        assert part.left + part.width <= 1 + 1e-12
        flips += part.flip
    assert 70 < flips < 130


def test_a_still_crop_is_the_centre_crop() -> None:
    crop, centre = CropDraw(32 / 40, 32 / 40, 0.0, 0.0, False).on(40, 48), centre_crop(40, 48, 32)
    assert (crop.top, crop.left, crop.height) == pytest.approx((centre.top, centre.left, centre.height))


def test_a_random_crop_is_what_numpys_uniform_draws() -> None:
    """Shift twice, flip, size: the order that decides what an existing recipe sees."""
    augment = Augment(crop_scale=(0.5, 0.9), shift=0.3, flip=True)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        down, right = rng.uniform(-0.3, 0.3, 2)
        flip = rng.random() < 0.5
        side = rng.uniform(0.5, 0.9)
        assert draw_crop(augment, np.random.default_rng(seed), Draws((seed,))) == CropDraw(
            side, side, down, right, flip
        )


@pytest.mark.parametrize(
    ("pair", "height", "width"),
    [
        ((1.0, 1.0), 256, 256),
        ((1.0, 0.875), 256, 224),
        ((0.875, 1.0), 224, 256),
        ((0.875, 0.875), 224, 224),
        ((0.875, 0.75), 224, 192),
        ((0.75, 0.875), 192, 224),
        ((0.75, 0.75), 192, 192),
        ((0.75, 0.66), 192, 169),
        ((0.66, 0.75), 169, 192),
        ((0.66, 0.66), 169, 169),  # 168.96; the original cuts it to 168
    ],
)
def test_multi_scale_sides_of_a_340x256_frame(pair: tuple[float, float], height: int, width: int) -> None:
    assert pair in SCALE_PAIRS
    assert len(SCALE_PAIRS) == 10
    rows, columns = crop_pixels((256, 340), CropDraw(*pair, -1.0, -1.0, False).on(256, 340))
    assert (rows.stop - rows.start, columns.stop - columns.start) == (height, width)


def test_the_thirteen_places_of_a_224_crop_in_a_340x256_frame() -> None:
    """The original's list for w_step = (340 - 224) // 4 = 29 and h_step = (256 - 224) // 4 = 8."""
    original = [
        (0, 0), (0, 116), (32, 0), (32, 116), (16, 58),  # corners and centre
        (16, 0), (16, 116), (32, 58), (0, 58),  # left, right, lower and upper edge
        (8, 29), (8, 87), (24, 29), (24, 87),  # quarters
    ]  # fmt: skip
    ours = []
    for place in PLACES:
        rows, columns = crop_pixels((256, 340), CropDraw(0.875, 0.875, *place, False).on(256, 340))
        ours.append((rows.start, columns.start))
        assert (rows.stop - rows.start, columns.stop - columns.start) == (224, 224)
    assert sorted(ours) == sorted(original)
    assert len(set(ours)) == 13


def test_multi_scale_draws_every_pair_and_place_equally_often() -> None:
    augment = Augment(crop="multi_scale", flip=True)
    draws = [draw_crop(augment, np.random.default_rng(seed), Draws((seed,))) for seed in range(2600)]
    pairs = Counter((draw.tall, draw.wide) for draw in draws)
    places = Counter((draw.down, draw.right) for draw in draws)
    assert set(pairs) == set(SCALE_PAIRS)
    assert set(places) == set(PLACES)
    assert all(180 < count < 340 for count in pairs.values())  # 260 expected, deviation 15
    assert all(140 < count < 265 for count in places.values())  # 200 expected, deviation 14
    assert 1200 < sum(draw.flip for draw in draws) < 1400


def test_every_choice_takes_the_same_numbers_from_the_generator() -> None:
    after = set()
    for augment in (Augment(), Augment(crop="multi_scale"), Augment(flip=True, shift=0.0, crop_scale=(1.0, 1.0))):
        rng = np.random.default_rng(7)
        draw_crop(augment, rng, Draws((7,)))
        after.add(rng.random())
    assert len(after) == 1


def test_switching_flip_on_changes_nothing_else() -> None:
    for seed in range(20):
        plain = draw_crop(Augment(), np.random.default_rng(seed), Draws((seed,)))
        flipped = draw_crop(Augment(flip=True), np.random.default_rng(seed), Draws((seed,)))
        assert not plain.flip
        assert (plain.tall, plain.down, plain.right) == (flipped.tall, flipped.down, flipped.right)


def test_each_purpose_and_modality_has_its_own_numbers() -> None:
    draws = Draws((0, 3, 99, 0))
    assert draws.of("noise").random() == draws.of("noise").random()
    others = [draws.of("blur"), Draws((0, 3, 99, 1)).of("noise"), Draws((0, 4, 99, 0)).of("noise")]
    assert len({draws.of("noise").random(), *(other.random() for other in others)}) == 4


def test_nothing_is_changed_unless_asked_for() -> None:
    assert not Augment().changes_planes
    for name in ("vignetting", "blur", "brightness", "contrast", "saturation"):
        assert Augment.model_validate({name: 0.1}).changes_planes
    assert not Augment(gain=0.1, offset=0.1, noise=0.1, pattern_noise=0.1, colour=0.1).changes_planes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_scale": (0.9, 0.5)}, "smaller value first"),
        ({"crop": "tenfold"}, "'random' or 'multi_scale'"),
        ({"vignetting": 1.1}, "less than or equal to 1"),
        ({"blur": -1}, "greater than or equal to 0"),
        ({"saturation": 1.5}, "less than or equal to 1"),
        ({"pattern_noise": -0.1}, "greater than or equal to 0"),
        ({"brightnes": 0.1}, "Extra inputs"),
    ],
)
def test_impossible_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Augment.model_validate(values)


def test_a_turn_and_an_aspect_are_drawn_apart_from_the_rest() -> None:
    plain = Augment(crop_scale=(0.8, 1.2), shift=0.1, flip=True)
    changed = plain.model_copy(update={"rotation_degrees": 10.0, "aspect": 0.21})
    turns, aspects = [], []
    for seed in range(300):
        before, after = (draw_crop(a, np.random.default_rng(seed), Draws((seed,))) for a in (plain, changed))
        assert (before.down, before.right, before.flip) == (after.down, after.right, after.flip)
        assert after.tall * after.wide == pytest.approx(before.tall * before.wide)  # as large as before
        assert before.turn_degrees == 0
        turns.append(after.turn_degrees)
        aspects.append(after.tall / after.wide)
    assert -10 <= min(turns) < -9.5
    assert 9.5 < max(turns) <= 10
    assert 1 / 1.21 <= min(aspects) < 0.835
    assert 1.2 < max(aspects) <= 1.21


def test_a_crop_about_a_person_may_be_larger_than_the_square_and_is_moved_by_shares_of_it() -> None:
    crop = CropDraw(1.2, 1.0, 0.05, -0.1, flip=True, turn_degrees=7.0).about()
    assert (crop.top, crop.left, crop.height, crop.width) == pytest.approx((-0.05, -0.1, 1.2, 1.0))
    assert (crop.flip, crop.is_free, crop.turn_degrees) == (True, True, 7.0)
    turned = CropDraw(0.5, 0.5, 0.0, 0.0, flip=False, turn_degrees=7.0).on(40, 80)
    assert (turned.is_free, turned.turn_degrees) == (True, 7.0)
    assert not CropDraw(0.5, 0.5, 0.0, 0.0, flip=False).on(40, 80).is_free


def test_quarter_turns_come_equally_often_and_change_nothing_else() -> None:
    turned, still = Augment(quarter_turns=True, rotation_degrees=10), Augment(rotation_degrees=10)
    turns: Counter[float] = Counter()
    for seed in range(400):
        draw, other = (draw_crop(a, np.random.default_rng(seed), Draws((seed,))) for a in (turned, still))
        quarter = draw.turn_degrees - other.turn_degrees
        turns[round(quarter)] += 1
        assert quarter == pytest.approx(round(quarter))
        assert (draw.tall, draw.down, draw.right, draw.flip) == (other.tall, other.down, other.right, other.flip)
    assert turns.keys() == {0, 90, 180, 270}
    assert min(turns.values()) > 70


def test_a_quarter_turn_of_a_square_frame_moves_whole_pixels() -> None:
    frame = np.arange(256, dtype=np.uint16).reshape(16, 16) * 100
    for quarters in range(4):
        crop = CropDraw(1.0, 1.0, 0.0, 0.0, False, 90.0 * quarters).on(16, 16)
        assert np.array_equal(cut(frame, crop, 16), np.rot90(frame, quarters))
