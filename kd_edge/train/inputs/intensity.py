"""Random intensity changes of a clip, the same in all its frames: lens, colours and sensor."""

from __future__ import annotations

import math

import numpy as np

from kd_edge.packages import import_extra
from kd_edge.preprocess import Normalise, Preprocess
from kd_edge.train.inputs.draws import Draws
from kd_edge.train.recipe.augment import Augment
from kd_edge.types import Float32

GREY = (np.float32(0.2989), np.float32(0.587), np.float32(0.114))
"""Shares of red, green and blue in grey (ITU-R BT.601)."""
OFF_CENTRE = 0.2
"""Furthest offset of the vignetting's centre, as a share of half the input's side."""


def jitter_limits(limits: Float32, augment: Augment, rng: np.random.Generator) -> Float32:
    """Change gain and offset of a clip's intensity windows, (T, 2) -> (T, 2)."""
    gain = 1 + rng.uniform(-augment.gain, augment.gain)
    offset = rng.uniform(-augment.offset, augment.offset)
    span = limits[:, 1:] - limits[:, :1]
    centre = limits.mean(axis=1, keepdims=True) + np.float32(offset) * span
    half = np.float32(gain / 2) * span
    changed: Float32 = np.concatenate([centre - half, centre + half], axis=1)
    return changed


def plain(spec: Preprocess) -> Preprocess:
    """The preprocessing up to the planes in [0, 1], which ``change_planes`` changes and ``normalised`` completes."""
    return spec.model_copy(update={"mean": (0.0,), "std": (1.0,), "replicate": 1})


def change_planes(planes: Float32, colours: int, augment: Augment, draws: Draws) -> None:
    """Darken the corners, blur and jitter the colours of a clip in place.

    Args:
        planes: (T, M * colours, S, S) float32 in [0, 1], M frames of the motion stack.
        colours: 1 or 3.
        augment: How much.
        draws: Random numbers of the sample.
    """
    if augment.vignetting > 0:
        darken_corners(planes, augment.vignetting, draws.of("vignetting"))
    if augment.blur > 0:
        blur(planes, augment.blur, draws.of("blur"))
    if augment.brightness or augment.contrast or augment.saturation:
        jitter_colours(planes, colours, augment, draws.of("colour jitter"))
    if augment.erase > 0:
        erase(planes, augment.erase, draws.of("erase"))


def darken_corners(planes: Float32, most: float, rng: np.random.Generator) -> None:
    """Vignetting: multiply by 1 - s (r / r_max)^2 in place, r from a point near the centre, s up to ``most``."""
    strength, down, right = rng.uniform((0, -OFF_CENTRE, -OFF_CENTRE), (most, OFF_CENTRE, OFF_CENTRE))
    along = np.linspace(-1, 1, planes.shape[-1])
    squares = (along[:, None] - down) ** 2 + (along[None, :] - right) ** 2  # (S, S)
    planes *= (1 - strength * squares / squares.max()).astype(np.float32)


def erase(planes: Float32, share: float, rng: np.random.Generator) -> None:
    """Random erasing (Zhong et al., AAAI 2020) of a share of the clips, in place: one black rectangle in all frames.

    Its area is 2 to 20 % of the image, its aspect between 1:3 and 3:1, cut off at the image's edges.
    """
    chance, area, aspect, down, right = rng.random(5)
    if chance >= share:
        return
    side = planes.shape[-1]
    size, stretch = math.sqrt(0.02 + 0.18 * area) * side, math.sqrt(3.0) ** (2 * aspect - 1)
    tall, wide = max(1, round(size * stretch)), max(1, round(size / stretch))
    top, left = int(down * side), int(right * side)
    planes[..., max(0, top - tall // 2) : top + (tall + 1) // 2, max(0, left - wide // 2) : left + (wide + 1) // 2] = 0


def blur(planes: Float32, most: float, rng: np.random.Generator) -> None:
    """Gaussian blur in place, cut off at three standard deviations; the image is mirrored at its edges."""
    cv2 = import_extra("cv2", "cpu")
    sigma = rng.uniform(0, most)
    side = 2 * math.ceil(3 * sigma) + 1
    for image in planes.reshape(-1, *planes.shape[2:]):  # (T C, S, S)
        cv2.GaussianBlur(image, (side, side), sigma, dst=image)


def jitter_colours(planes: Float32, colours: int, augment: Augment, rng: np.random.Generator) -> None:
    """Brightness, contrast and saturation in random order in place, each cut to [0, 1] (torchvision's ColorJitter).

    The grey that contrast leaves alone is the whole clip's, so that equal values stay equal in all frames.
    """
    shares = (augment.brightness, augment.contrast, augment.saturation if colours == 3 else 0.0)
    factors = 1 + rng.uniform(-1, 1, 3) * shares
    stack = planes.reshape(len(planes), -1, colours, *planes.shape[2:])  # (T, M, colours, S, S)
    for kind in rng.permutation(3):
        if shares[kind] == 0:
            continue
        factor = np.float32(factors[kind])
        if kind > 0:
            still = _mean_grey(stack) if kind == 1 else _grey(stack)
            stack -= still
            stack *= factor
            stack += still
        else:
            stack *= factor
        np.clip(stack, np.float32(0), np.float32(1), out=stack)


def _grey(stack: Float32) -> Float32:
    """(T, M, 3, S, S) -> (T, M, 1, S, S); plane by plane, which is several times as fast as one product of arrays."""
    grey: Float32 = stack[:, :, :1] * GREY[0]
    for colour in (1, 2):
        grey += stack[:, :, colour : colour + 1] * GREY[colour]
    return grey


def _mean_grey(stack: Float32) -> np.float32:
    """Mean over a clip (T, M, 1 or 3, S, S) of its grey."""
    means = stack.mean(axis=(0, 1, 3, 4))
    return np.float32(means @ GREY if len(means) == 3 else means[0])


def normalised(planes: Float32, spec: Preprocess) -> Float32:
    """Planes in [0, 1] as network input, (T, M * colours, S, S) -> (T, C, S, S)."""
    out = np.empty((len(planes), spec.input_channels, *planes.shape[2:]), dtype=np.float32)
    normalise = Normalise(spec)
    for frame, target in zip(planes, out, strict=True):
        normalise.stack_windowed(list(frame), target)
    return out


def change_input(clip: Float32, spec: Preprocess, augment: Augment, draws: Draws) -> Float32:
    """Mix the colours of a network input (T, C, S, S) and add noise; it may be changed in place."""
    if augment.colour > 0 and spec.channels == 3:
        clip = mix_colours(clip, augment.colour, draws.of("colour"))
    if augment.pattern_noise > 0:
        add_pattern(clip, spec.channels, augment.pattern_noise, draws.of("pattern noise"))
    if augment.noise > 0:
        add_noise(clip, spec.replicate, augment.noise, draws.of("noise"))
    return clip


def mix_colours(clip: Float32, most: float, rng: np.random.Generator) -> Float32:
    """Shuffle the colours of a network input (T, 3 M, S, S) and mix them with their mean, by a share up to ``most``."""
    planes = clip.reshape(len(clip), -1, 3, *clip.shape[2:])  # (T, M, 3, S, S)
    share = np.float32(rng.uniform(0, most))
    mixed: Float32 = (1 - share) * planes[:, :, rng.permutation(3)] + share * planes.mean(axis=2, keepdims=True)
    return mixed.reshape(clip.shape)


def add_pattern(clip: Float32, colours: int, deviation: float, rng: np.random.Generator) -> None:
    """Add one Gaussian image to all frames of a network input (T, C, S, S) in place."""
    frames = clip.reshape(len(clip), -1, colours, *clip.shape[2:])  # (T, M or copies, colours, S, S)
    frames += np.float32(deviation) * rng.standard_normal(frames.shape[2:], dtype=np.float32)


def add_noise(clip: Float32, copies: int, deviation: float, rng: np.random.Generator) -> None:
    """Add Gaussian noise to a network input (T, C, S, S) in place; the copies of a replicated channel stay alike."""
    frames = clip.reshape(len(clip), copies, -1, *clip.shape[2:])  # (T, copies, channels, S, S)
    shape = (len(clip), 1, *frames.shape[2:])
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(deviation)
    frames += noise
