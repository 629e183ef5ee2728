"""Advice on a camera's settings from the figures of its check-up, each with the line for its camera file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from kd_edge.artifact import Manifest
from kd_edge.crop import view_of_focal
from kd_edge.errors import CameraError
from kd_edge.runtime.cameras import Wanted, check_fits, make_camera
from kd_edge.runtime.cameras.base import focal_of
from kd_edge.runtime.cameras.checkup import Checkup, examine
from kd_edge.runtime.cameras.config import CameraConfig, camera_config, has_key, source_name
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.rate import NeededRate
from kd_edge.runtime.uri import NETWORK, TOPIC, shown

Level = Literal["ok", "note", "problem"]

DOTTED = 1.5
"""Dots per 1000 pixels at and above which a projector is assumed to be on: no ordinary picture that was tried had more
than 1.1 (a star field had 11), and with twelve drawn per 1000 pixels all had 1.4 or more (fine grass: 0.7)."""
MUCH_BLACK, MUCH_SATURATED = 0.5, 0.05
OFF_RATE = 0.1
"""Largest accepted deviation of the rate, as a share of the nominal one."""
UNSTEADY = 0.25
"""Largest accepted jitter, as a share of the period."""
SOME, MANY = 0.01, 0.1
"""Shares of frames above which something happens occasionally, and all the time."""
DOUBLED = 0.3
"""Share of repeated pictures at and above which each is assumed to be sent about twice."""
OUTSIDE = 0.2
"""Largest accepted share of values outside a model's window, where it sees no differences."""
OLD_MS = 200.0
AGAINST_GAPS = {
    TOPIC: "a driver that publishes reliably (best effort loses large pictures)",
    **dict.fromkeys(NETWORK, "a better network"),
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding.

    Attributes:
        level: ``ok``, ``note`` or ``problem``.
        topic: What was checked.
        found: What was measured, with figures.
        fix: What to do; empty if nothing is needed.
        lines: Lines for the camera file; empty if none would help.
    """

    level: Level
    topic: str
    found: str
    fix: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The measurements of a camera and the advice derived from them.

    Attributes:
        camera: The camera as the user named it.
        uri: Its URI.
        measured: The figures.
        advice: The findings, including good ones.
    """

    camera: str
    uri: str
    measured: Checkup
    advice: tuple[Advice, ...]

    @property
    def level(self) -> Level:
        """The worst of the findings."""
        levels: tuple[Level, ...] = ("problem", "note")
        return next((level for level in levels if any(one.level == level for one in self.advice)), "ok")


def diagnose(name_or_uri: str, seconds: float, manifest: Manifest, clock: Clock = MONOTONIC) -> Diagnosis:
    """Open a camera for a model, watch it and recommend changes.

    A camera that does not fit the model is still watched, but its pictures are not compared with the model.

    Raises:
        ConfigError: Unknown name or URI.
        CameraError: The camera cannot be opened.
        DataError: A recording is missing or damaged.
    """
    config, wanted = camera_config(name_or_uri), Wanted.by(manifest)
    camera = make_camera(source_name(name_or_uri)[0], config, wanted, clock=clock)
    camera.open()
    try:
        found = [*_misfit(lambda: check_fits(camera, wanted))]
        matching = None if found else manifest
        found += [] if matching is None else [*_lens(focal_of(camera, config), matching)]
        seen = examine(camera, seconds, matching, clock)
    finally:
        camera.close()
    return Diagnosis(shown(name_or_uri), shown(config.uri), seen, (*found, *advise(seen, config, matching)))


def _misfit(check: Callable[[], None]) -> Iterator[Advice]:
    try:
        check()
    except CameraError as error:
        yield Advice("problem", "model", f"{error.found}, not {error.expected}", error.fix)


def _lens(focal: float | None, manifest: Manifest) -> Iterator[Advice]:
    """Check the field of view, for a model whose crop around a person is in metres."""
    assumed = manifest.preprocess.focal
    if assumed is None:
        return
    made_for = f"'{manifest.name}' crops in metres and was trained with {view_of_focal(assumed):.1f} degrees"
    if focal is None:
        found = f"the camera's field of view is not known; {made_for}, which are assumed"
        fix = "its horizontal field of view, from its data sheet: 2 atan(width / (2 fx)) of its calibration"
        yield Advice("note", "lens", found, fix, (f"hfov_deg = {view_of_focal(assumed):.1f}",))
    else:
        yield Advice("ok", "lens", f"{view_of_focal(focal):.1f} degrees wide; {made_for}")


def advise(seen: Checkup, config: CameraConfig, manifest: Manifest | None = None) -> list[Advice]:
    """Derive advice from the figures; nothing is reported that was not measured.

    Args:
        seen: The figures.
        config: The configuration the camera was opened with.
        manifest: The model that the pictures are meant for.
    """
    found = [*_alive(seen)]
    if seen.frames:
        checks: tuple[Callable[[Checkup, CameraConfig], Iterator[Advice]], ...]
        checks = (_rate, _doubled, _stamps, _light, _dots, _flicker, _frozen, _sizes)
        found += [advice for check in checks for advice in check(seen, config)]
        if manifest is not None:
            found += [*_needed(seen, manifest), *_match(seen, config)]
    return found


def _alive(seen: Checkup) -> Iterator[Advice]:
    count = f"{seen.frames} frames in {seen.seconds:.1f} s"
    if seen.fault:
        yield Advice("problem", "frames", f"{count}, then: {seen.fault}", "check its cable, its port, its file")
    elif not seen.frames:
        yield Advice("problem", "frames", count, "check its cable; is another program using it?")
    if seen.damaged:
        share = seen.damaged / (seen.damaged + seen.frames)
        fix = "a shorter cable, another port, or a format that is not compressed"
        yield Advice("problem" if share > SOME else "note", "frames", f"{seen.damaged} damaged pictures", fix)


def _rate(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    pace = seen.arrivals or seen.captures
    if pace is None or pace.fps is None:
        return
    nominal, rate = seen.nominal_fps, f"{pace.fps:.1f} frames/s"
    figures = (
        f"usual distance {pace.period_ms:.1f} ms, jitter {pace.jitter_ms:.1f} ms, longest {pace.longest_ms:.0f} ms"
    )
    if nominal and abs(pace.fps - nominal) > OFF_RATE * nominal:
        fix = "a low rate is often long exposure in the dark, or too little USB bandwidth; or accept the measured rate"
        lines = (f"fps = {pace.fps:.3g}",) if has_key(config, "fps") else ()
        yield Advice("problem", "rate", f"{rate}, nominal {nominal:.1f}; {figures}", fix, lines)
    else:
        yield Advice("ok", "rate", f"{rate}{f', nominal {nominal:.1f}' if nominal else ''}; {figures}")
    if not seen.live:
        return
    if pace.gaps > max(1, SOME * seen.frames):
        fix = f"{AGAINST_GAPS.get(config.scheme, 'another USB port, fewer cameras on one hub')}, a smaller picture"
        yield Advice("note", "rate", f"{pace.gaps} of {seen.frames} frames came after a gap", fix)
    captures = seen.captures if seen.stamps is not None and seen.stamps.looks_like != "arrival" else None
    if captures is not None and captures.period_ms > 0 and captures.jitter_ms > UNSTEADY * captures.period_ms:
        fix = "a fixed exposure; a driver that stamps frames when they are captured"
        if config.scheme in NETWORK:
            fix = 'a better network; clock = "device", the stream\'s own stamps (not of single JPEGs)'
        yield Advice("note", "rate", f"stamps jitter by {captures.jitter_ms:.1f} ms", fix)


def _doubled(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    share = seen.repeated / seen.frames
    pace = seen.arrivals or seen.captures
    if DOUBLED <= share < 0.95 and pace is not None and pace.fps is not None:
        real = pace.fps * (1 - share)
        lines = (f"fps = {real:.3g}",) if has_key(config, "fps") else ()
        found = f"{share:.0%} of the pictures repeat the one before: {real:.1f} different ones a second"
        yield Advice("problem", "rate", found, "ask for the rate that the sensor has", lines)


def _stamps(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    stamps = seen.stamps
    if stamps is None:
        return
    faults = [
        f"{count} {fault}"
        for count, fault in (
            (stamps.unusable, "are not numbers"),
            (stamps.repeated, "repeat the one before"),
            (stamps.backward, "go back"),
            (stamps.steps, "stepped"),
        )
        if count
    ]
    likely, age = stamps.looks_like, stamps.age_ms
    aged = "" if age is None else f", {age[1]:.0f} ms old on arrival ({age[0]:.0f} to {age[2]:.0f})"
    found = f"stamps look like clock '{likely}'{aged}" if likely else "no usable stamps"
    if faults:
        found += f"; {', '.join(faults)}"
    if stamps.declared == "arrival":
        yield Advice("ok", "stamps", f"not used; {found}")
    elif likely not in (None, stamps.declared) and (stamps.declared != "device" or likely == "arrival"):
        # a device's own clock may be any running clock
        lines = (f'clock = "{likely}"',) if has_key(config, "clock") else ()
        yield Advice("problem", "stamps", found, f"the declared clock is '{stamps.declared}'", lines)
    elif faults:
        lines = ('clock = "arrival"',) if has_key(config, "clock") else ()
        often = stamps.unusable + stamps.repeated + stamps.backward + stamps.steps > SOME * seen.frames
        yield Advice("problem" if often else "note", "stamps", found, "if this persists, do without them", lines)
    elif age is not None and age[1] > OLD_MS:
        yield Advice("note", "stamps", found, "frames wait in a buffer: ask for fewer, smaller or uncompressed ones")
    else:
        yield Advice("ok", "stamps", found)


def _light(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    values = seen.values
    if values is None:
        return
    found = (
        f"{values.black:.1%} black, {values.saturated:.1%} saturated, values {values.percentiles[0]:.0f} to "
        f"{values.percentiles[2]:.0f} of {values.full_scale}, median {values.percentiles[1]:.0f}"
    )
    if values.black > MUCH_BLACK and seen.band != "depth":
        fix = f"an infrared lamp, or longer exposure: {_exposure(config)}"
        if seen.band is None and seen.dtype == "uint16":  # depth cameras return 0 for missing depth
            fix += '; if it measures depth, set band = "depth"'
        yield Advice("problem", "light", found, fix, _exposure_lines(config, 15_000, 64))
    elif values.saturated > MUCH_SATURATED:
        fix = f"shorter exposure, less gain, lamp further away: {_exposure(config)}"
        yield Advice("problem", "light", found, fix, _exposure_lines(config, 2_000, 16))
    else:
        yield Advice("ok", "light", found)


def _dots(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    density = None if seen.values is None else seen.values.dots_per_1000
    if density is None:
        return
    found = f"{density:.2g} more bright than dark isolated dots per 1000 pixels"
    if density < DOTTED:
        yield Advice("ok", "emitter", found)
        return
    found += ": like the pattern of a projector, which no model has been trained with unless you did"
    if config.scheme == "realsense":
        fix = "turn it off, with an infrared lamp in the dark"
        yield Advice("problem", "emitter", found, fix, ('emitter = "off"',))
    elif config.scheme == "v4l2":
        fix = "open a RealSense as realsense:, which turns its projector off; otherwise turn it off or cover it"
        yield Advice("problem", "emitter", found, fix, ('uri = "realsense:"',))
    else:
        yield Advice("problem", "emitter", found, "record with the projector off")


def _flicker(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    values = seen.values
    if values is None or seen.frames < 2 or seen.band == "depth":
        return
    share = values.jumps / (seen.frames - 1)
    found = f"mean {values.mean:.4g}, largest change from frame to frame {values.largest_jump:.1%}"
    if share <= SOME or values.jumps < 2:
        yield Advice("ok", "brightness", found)
        return
    level: Level = "problem" if share > MANY else "note"
    found += f"; it jumps at {values.jumps} of {seen.frames - 1} frames"
    fix = "gain control that hunts, a flickering lamp, a heat camera's shutter"
    if seen.live:
        fix += f"; a fixed exposure of whole periods of the lamps: {_exposure(config)}"
    yield Advice(level, "brightness", found, fix, _exposure_lines(config, 10_000, 16))


def _frozen(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    if seen.longest_same_ms >= config.frozen_ms:
        found = f"one picture stayed for {seen.longest_same_ms:.0f} ms: from {config.frozen_ms} ms on it is frozen"
        fix = "plug it in again; for a scene that really is still for that long, a larger frozen_ms"
        lines = (f"frozen_ms = {min(60_000, round(2 * seen.longest_same_ms, -2)):.0f}",)
        yield Advice("problem", "frozen", found, fix if seen.live else "", lines if seen.live else ())
    else:
        yield Advice("ok", "frozen", f"{seen.repeated} of {seen.frames} pictures repeat the one before")


def _sizes(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    if seen.sizes > 1:
        yield Advice("problem", "size", f"{seen.sizes} sizes or types of frames", "one: each change empties the window")


def _needed(seen: Checkup, manifest: Manifest) -> Iterator[Advice]:
    pace, needed = seen.arrivals or seen.captures, NeededRate.of(manifest)
    if pace is None or pace.fps is None:
        return
    found = f"{pace.fps:.1f} frames/s; '{manifest.name}' needs {needed}"
    if pace.fps < needed.full_fps:
        level: Level = "problem" if pace.fps < needed.least_fps else "note"
        yield Advice(level, "rate for the model", found, "a higher rate, or a model with wider motion offsets")
    else:
        yield Advice("ok", "rate for the model", found)


def _match(seen: Checkup, config: CameraConfig) -> Iterator[Advice]:
    match = seen.match
    if match is None:
        return
    topic = "pictures for the model"
    for reason, share in match.judged.items():
        level: Level = "problem" if share > MANY else "note"
        found = f"'{match.model}' rates {share:.0%} of the frames as {reason}: {match.details[reason]}"
        fix = "these are unlike its training pictures: see above, or train with recordings of yours"
        yield Advice(level, topic, found, fix)
    if match.below + match.above > OUTSIDE:
        limits = f"{match.limits[0]:g} to {match.limits[1]:g}"
        source = "the window of" if match.is_window else "the values known to"
        found = f"{match.below:.0%} of the values lie below {source} '{match.model}', {limits}, {match.above:.0%} above"
        fix = "train with a window that covers them, or a percentile window" if match.is_window else "another model"
        yield Advice("problem", topic, found, fix)
    elif not match.judged and match.can_judge:
        yield Advice("ok", topic, f"'{match.model}' rates them as healthy as its training pictures")
    elif not match.can_judge:
        found = f"'{match.model}' has no statistics of its training pictures"
        yield Advice("note", topic, found, "export it with health")


def _exposure(config: CameraConfig) -> str:
    if config.scheme == "v4l2":
        return f"v4l2-ctl --device {config.target or '/dev/video0'} --list-ctrls shows auto_exposure and gain"
    return "as a start" if config.scheme == "realsense" else "in the camera's own settings"


def _exposure_lines(config: CameraConfig, exposure_us: int, gain: int) -> tuple[str, ...]:
    return (f"exposure_us = {exposure_us}", f"gain = {gain}") if config.scheme == "realsense" else ()
