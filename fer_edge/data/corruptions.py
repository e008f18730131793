"""Corruptions of stills and clips in three levels.

Each corruption varies over time as in front of a camera: noise is new in every frame, light and blur follow the level
of each frame, a hand enters and leaves. A still is a clip of one frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer_edge.core.errors import require
from fer_edge.core.json import expect
from fer_edge.core.types import Array, Float32, Uint8

__all__ = ["CORRUPTIONS", "LEVELS", "corrupt", "hand_template", "rim_template"]


LEVELS: Final = (1, 2, 3)
"""Light, medium, heavy; levels in between, and down to 0 (none), are interpolated."""

_PASS_FRAMES: Final = (3.0, 7.0)
"""Range of the frames between an occlusion's nearest position and its exit."""


def corrupt(images: Uint8, name: str, *, level: ArrayLike, generator: np.random.Generator) -> Uint8:
    """Corrupt faces.

    Args:
        images: uint8 (N, H, W) grey stills, or (N, T, H, W) grey clips; not modified.
        name: one of `CORRUPTIONS`.
        level: 0 (none) to 3 (heavy); a number, or an array that broadcasts to (N,) for stills and (N, T) for clips.

    Returns:
        uint8, of the images' shape.

    Raises:
        InputError: an unknown corruption, images of another type or shape, or a level outside 0 to 3.
        MissingPackageError: OpenCV is not installed.
    """
    expect(name in CORRUPTIONS, "corruption", name, f"one of {', '.join(CORRUPTIONS)}")
    fits = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim in (3, 4)
    got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
    expect(fits, "images", got, "uint8 (N, H, W) or (N, T, H, W) grey")
    levels = np.asarray(level, dtype=np.float32)
    expect(bool(((levels >= 0) & (levels <= LEVELS[-1])).all()), "level", level, f"0 to {LEVELS[-1]}")
    if 0 in images.shape:
        return images.copy()
    per_frame = np.broadcast_to(levels, images.shape[:-2])
    clips = images.reshape(len(images), -1, *images.shape[-2:])
    return CORRUPTIONS[name](clips, per_frame.reshape(clips.shape[:2]), generator).reshape(images.shape)


def _poor_light(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Underexpose, crush dark tones, and cast a shadow from one side."""
    gamma, gain, shadow = (
        _at(level, 1.0, 1.3, 1.7, 2.2),
        _at(level, 1.0, 0.7, 0.45, 0.25),
        _at(level, 0, 0.5, 0.75, 0.9),
    )
    x, y = _places(frames)
    turn = generator.uniform(0, 2 * math.pi, (len(frames), 1, 1)).astype(np.float32)
    ramp = 0.5 + (np.cos(turn) * x + np.sin(turn) * y[:, None]) / (2 * math.sqrt(2))
    light = np.power(frames / np.float32(255), gamma) * (255 * gain)
    return _pixels(light * (1 - shadow * ramp[:, None]))


def _blur(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Defocus: a Gaussian with sigma relative to the face."""
    cv2, sigma = _cv2(), _at(level, 0, 0.02, 0.035, 0.055)[..., 0, 0] * frames.shape[-1]
    result = frames.copy()
    for place in map(tuple, np.argwhere(sigma > 0.1)):
        result[place] = cv2.GaussianBlur(frames[place], (0, 0), float(sigma[place]))
    return result


def _noise(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Add Gaussian noise, new in every frame, with a deviation in grey levels."""
    grain = generator.standard_normal(frames.shape, dtype=np.float32)
    return _pixels(frames + grain * _at(level, 0, 10, 20, 35))


def _compression(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Encode as JPEG and decode."""
    cv2, quality = _cv2(), np.rint(_at(level, 95, 25, 12, 6)[..., 0, 0]).astype(int)
    result = frames.copy()
    for place in map(tuple, np.argwhere(level > 0)):
        encoded = cv2.imencode(".jpg", frames[place], [cv2.IMWRITE_JPEG_QUALITY, int(quality[place])])[1]
        result[place] = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    return result


def _salt_and_pepper(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Set a share of the pixels, new in every frame, to black or white."""
    share = _at(level, 0, 0.02, 0.06, 0.12)
    draw = generator.random(frames.shape, dtype=np.float32)
    return np.where(draw < share, np.where(draw < share / 2, np.uint8(0), np.uint8(255)), frames)


def _low_resolution(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Simulate a distant face: downscale by area, upscale linearly."""
    cv2, factor = _cv2(), _at(level, 1, 2, 3, 4)[..., 0, 0]
    height, width = frames.shape[-2:]
    result = frames.copy()
    for place in map(tuple, np.argwhere(factor > 1)):
        small = (max(1, round(width / factor[place])), max(1, round(height / factor[place])))
        shrunk = cv2.resize(frames[place], small, interpolation=cv2.INTER_AREA)
        result[place] = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    return result


def _hand(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Move a hand in from the left, the right or below and out again; its tone is close to the face's."""
    angle = generator.choice(np.radians([-90.0, 90.0, 0.0]), len(frames)) + generator.uniform(-0.5, 0.5, len(frames))
    tone = frames.mean(axis=(1, 2, 3)) * generator.uniform(0.8, 1.3, len(frames))
    reach = _at(level, -0.2, 0.5, 0.9, 1.3)[..., 0, 0]
    return _pass_by(frames, level, hand_template(), angle=angle, tone=tone, reach=reach, generator=generator)


def _steering_wheel(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Move the dark rim of a steering wheel up in front of the face and down again."""
    angle = generator.uniform(-0.5, 0.5, len(frames))
    tone = generator.uniform(20, 60, len(frames))
    reach = _at(level, -0.2, 0.4, 0.8, 1.1)[..., 0, 0]
    return _pass_by(frames, level, rim_template(), angle=angle, tone=tone, reach=reach, generator=generator)


def _sun_flicker(frames: Uint8, level: Float32, generator: np.random.Generator) -> Uint8:
    """Low sun through trees: bands of glare and shade cross the face two to four times a second at 10 Hz."""
    count, steps = frames.shape[:2]
    x, y = _places(frames)
    turn, waves, phase, speed = (
        generator.uniform(low, high, (count, 1, 1, 1)).astype(np.float32)
        for low, high in ((-0.7, 0.7), (0.6, 1.6), (0, 1), (0.2, 0.4))
    )
    moved = phase + speed * np.arange(steps, dtype=np.float32).reshape(1, steps, 1, 1)
    along = (np.cos(turn) * x + np.sin(turn) * y[:, None]) * waves / 2 + moved
    band = 1 / (1 + np.exp(-6 * np.sin(2 * math.pi * along)))
    glare, shade = _at(level, 0, 40, 80, 130), _at(level, 0, 0.2, 0.35, 0.5)
    return _pixels(frames * (1 - shade * (1 - band)) + glare * band)


CORRUPTIONS: Final[Mapping[str, Callable[[Uint8, Float32, np.random.Generator], Uint8]]] = {
    "poor_light": _poor_light,
    "blur": _blur,
    "noise": _noise,
    "compression": _compression,
    "hand": _hand,
    "steering_wheel": _steering_wheel,
    "sun_flicker": _sun_flicker,
    "salt_and_pepper": _salt_and_pepper,
    "low_resolution": _low_resolution,
}
"""Every corruption by name; `corrupt` checks the arguments."""


def _at(level: Float32, *knots: float) -> Float32:
    """Interpolate between the values at levels 0, 1, 2, 3: (N, T) -> float32 (N, T, 1, 1)."""
    values: Float32 = np.interp(level, range(len(knots)), knots).astype(np.float32)[..., None, None]
    return values


def _places(frames: Uint8) -> tuple[Float32, Float32]:
    """Return the pixels' x (W,) and y (H,), -1 to 1."""
    height, width = frames.shape[-2:]
    return np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)


def _pixels(light: Array) -> Uint8:
    grey: Uint8 = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return grey


def _pass_by(
    frames: Uint8,
    level: Float32,
    template: Float32,
    *,
    angle: NDArray[np.float64],
    tone: NDArray[np.float64],
    reach: Float32,
    generator: np.random.Generator,
) -> Uint8:
    """Move an object into the picture and out again, at a random time of each clip.

    Args:
        frames: uint8 (N, T, H, W).
        level: (N, T), nothing is drawn where it is 0.
        template: float (2, S, S): opacity 0..1, and shading about 1; the tip points up, a quarter from the top.
        angle: (N,) direction of the tip, radians clockwise from up; the object enters from the opposite side.
        tone: (N,) grey level.
        reach: (N, T) distance of the tip beyond the edge of the face's half, in half sides.
        generator: draws time and duration.
    """
    cv2 = _cv2()
    count, steps, height, width = frames.shape
    nearest = generator.uniform(0, steps - 1, (count, 1))
    away = np.abs(np.arange(steps) - nearest) / generator.uniform(*_PASS_FRAMES, (count, 1))
    sideways = generator.uniform(-0.35, 0.35, (count,))
    depth = reach - (1.2 + reach) * np.square(np.minimum(away, 1.0))  # of the tip beyond the face's edge
    size = generator.uniform(1.17, 1.56, (count,)) * (max(height, width) / template.shape[-1])
    result = frames.copy()
    for clip, step in np.argwhere((level > 0) & (away < 1)):
        up = np.array([math.sin(angle[clip]), -math.cos(angle[clip])])
        tip = up * (depth[clip, step] - 1) + np.array([-up[1], up[0]]) * sideways[clip]
        turn = np.array([[-up[1], -up[0]], [up[0], -up[1]]]) * size[clip]
        middle = (np.array([width, height]) - 1) / 2
        shift = middle * (1 + tip) - turn @ np.array([template.shape[-1] / 2, template.shape[-1] / 4])
        moved = [
            cv2.warpAffine(part, np.column_stack((turn, shift)), (width, height), flags=cv2.INTER_LINEAR)
            for part in template
        ]
        face = frames[clip, step].astype(np.float32)
        result[clip, step] = _pixels(face + moved[0] * (np.clip(moved[1] * tone[clip], 0, 255) - face))
    return result


def hand_template(side: int = 192) -> Float32:
    """Draw four fingers and a palm from the back."""
    cv2 = _cv2()
    opacity, shading = np.zeros((side, side), np.float32), np.full((side, side), 1.0, np.float32)
    half, top, width = side // 2, side // 4, side // 12
    for finger, (drop, lean) in enumerate(((14, -6), (2, -2), (0, 2), (10, 8))):
        root = (half + round((finger - 1.5) * width * 1.05), top + side // 3)
        tip = (root[0] + lean, top + drop + width // 2)
        cv2.line(opacity, root, tip, 1.0, width, cv2.LINE_AA)
        cv2.line(shading, (root[0] + width // 2, root[1]), (tip[0] + width // 2, tip[1]), 0.6, 2, cv2.LINE_AA)
    cv2.line(opacity, (half, top + side * 2 // 5), (half, 2 * side), 1.0, width * 9 // 2, cv2.LINE_AA)
    return np.stack((opacity, shading))


def rim_template(side: int = 192) -> Float32:
    """Draw the upper arc of a wheel much larger than the face, with a dull highlight."""
    cv2 = _cv2()
    opacity, shading = np.zeros((side, side), np.float32), np.full((side, side), 1.0, np.float32)
    radius, width = side, side // 5
    centre = (side // 2, side // 4 + radius + width // 2)
    cv2.circle(opacity, centre, radius, 1.0, width, cv2.LINE_AA)
    cv2.circle(shading, centre, radius + width // 5, 2.0, width // 6, cv2.LINE_AA)
    return np.stack((opacity, shading))


def _cv2() -> Any:
    return require("cv2", needed_by="corrupting faces", extra="cpu")
