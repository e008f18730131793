"""Random degradations of training faces as cameras and cabins cause them, in batches, on the faces' device.

Every function takes and returns grey levels as float32 (n, 1, S, S) and draws its numbers from the generator that it is
given. `degrade` gives each chosen face one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final

import torch
from torch import Tensor

__all__ = ["DEGRADATIONS", "degrade"]

_JPEG_LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""Quantization of the luminance, annex K.1 of ITU-T T.81."""


def degrade(light: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Degrade a share of the faces, each in one way.

    Args:
        light: float32 (B, 1, S, S), grey levels 0 to 255.
        share: probability of each face.
        generator: on the faces' device.

    Returns:
        float32 (B, 1, S, S), not clipped.
    """
    if not share:
        return light
    draw = torch.rand(len(light), generator=generator, device=light.device)
    kind = torch.where(draw < share, (draw / share * len(DEGRADATIONS)).long(), -1)
    result = light.clone()
    for index, change in enumerate(DEGRADATIONS.values()):
        rows = (kind == index).nonzero().squeeze(1)
        if len(rows):
            result[rows] = change(light[rows], generator)
    return result


def _uniform(light: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """One number a face, (n, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(light), 1, 1, 1, generator=generator, device=light.device)


def _places(light: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (S,) and rows (S, 1), -1 to 1."""
    place = torch.linspace(-1, 1, light.shape[-1], device=light.device)
    return place, place.unsqueeze(1)


def _night(light: Tensor, generator: torch.Generator) -> Tensor:
    """Little light, amplified: dark, low contrast, noise."""
    gamma, gain = _uniform(light, generator, 1.0, 2.0), _uniform(light, generator, 0.12, 0.6)
    grain = torch.randn(light.shape, generator=generator, device=light.device)
    return (255 * gain * (light / 255).clamp(0, 1) ** gamma + grain * _uniform(light, generator, 1, 11)).round()


def _side_light(light: Tensor, generator: torch.Generator) -> Tensor:
    """Strong light from one side, deep shadow on the other."""
    columns, rows = _places(light)
    turn = _uniform(light, generator, 0, 2 * math.pi)
    lit = torch.sigmoid(_uniform(light, generator, 1, 5) * (torch.cos(turn) * columns + torch.sin(turn) * rows))
    dark = _uniform(light, generator, 0.05, 0.5)
    return light * (dark + (1.25 - dark) * lit)


def _vignette(light: Tensor, generator: torch.Generator) -> Tensor:
    """Dark corners, as behind a lens or in the beam of an infrared lamp."""
    columns, rows = _places(light)
    shift = torch.rand(2, len(light), 1, 1, 1, generator=generator, device=light.device) - 0.5
    away = (columns - shift[0]) ** 2 + (rows - shift[1]) ** 2
    return light * torch.exp(-away * _uniform(light, generator, 0.3, 1.8))


def _infrared(light: Tensor, generator: torch.Generator) -> Tensor:
    """Flattened tones with hard contrast around the middle, or washed out."""
    contrast, bright = _uniform(light, generator, 2, 14), _uniform(light, generator, -1, 1.5)
    return 255 * torch.sigmoid((light - light.mean(dim=(2, 3), keepdim=True)) / 255 * contrast + bright)


def _motion(light: Tensor, generator: torch.Generator) -> Tensor:
    """Motion blur: 3 to 11 pixels in any direction."""
    side = 11
    place = torch.arange(side, device=light.device) - side // 2
    turn, half = _uniform(light, generator, 0, math.pi), _uniform(light, generator, 1.0, 5.5)
    along = torch.cos(turn) * place + torch.sin(turn) * place.unsqueeze(1)
    across = -torch.sin(turn) * place + torch.cos(turn) * place.unsqueeze(1)
    kernel = ((half + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)).clamp(min=0)
    kernel = kernel / kernel.sum(dim=(2, 3), keepdim=True)
    padded = torch.nn.functional.pad(light, (side // 2,) * 4, mode="replicate").transpose(0, 1)
    return torch.nn.functional.conv2d(padded, kernel, groups=len(light)).transpose(0, 1)


def _defocus(light: Tensor, generator: torch.Generator) -> Tensor:
    """Repeated binomial blur, 2 to 6 times."""
    times = int(torch.randint(2, 7, (), generator=generator, device=light.device))
    for _ in range(times):
        padded = torch.nn.functional.pad(light, (1, 1, 1, 1), mode="replicate")
        light = torch.nn.functional.avg_pool2d(torch.nn.functional.avg_pool2d(padded, 2, 1), 2, 1)
    return light


def _distant(light: Tensor, generator: torch.Generator) -> Tensor:
    """A face of 12 to 28 pixels, enlarged."""
    side = light.shape[-1]
    small = int(torch.randint(12, 29, (), generator=generator, device=light.device))
    shrunk = torch.nn.functional.interpolate(light, size=(small, small), mode="area")
    return torch.nn.functional.interpolate(shrunk, size=(side, side), mode="bilinear", align_corners=False)


def _jpeg(light: Tensor, generator: torch.Generator) -> Tensor:
    """JPEG's rounding of 8 x 8 blocks at qualities of 3 to 40; sides that 8 does not divide keep a border unchanged."""
    side = light.shape[-1] // 8 * 8
    quality = torch.exp(_uniform(light, generator, math.log(3), math.log(40)))
    table = torch.tensor(_JPEG_LUMINANCE, dtype=torch.float32, device=light.device)
    steps = ((5000 / quality * table + 50) / 100).floor().clamp(1, 255)[:, :, None, None]
    basis = _cosines().to(light.device)
    blocks = light[..., :side, :side].unfold(2, 8, 8).unfold(3, 8, 8) - 128
    rounded = ((basis @ blocks @ basis.T) / steps).round() * steps
    flat = (basis.T @ rounded @ basis + 128).permute(0, 1, 2, 4, 3, 5).reshape(len(light), 1, side, side)
    result = light.clone()
    result[..., :side, :side] = flat
    return result


@cache
def _cosines() -> Tensor:
    """The discrete cosine transform of eight samples, (8, 8)."""
    step, place = torch.arange(8).unsqueeze(1), torch.arange(8)
    basis = torch.cos(math.pi * step * (2 * place + 1) / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _sunglasses(light: Tensor, generator: torch.Generator) -> Tensor:
    """Two dark lenses and a bridge over the eyes."""
    columns, rows = _places(light)
    level, wide, high = (_uniform(light, generator, *each) for each in ((-0.4, -0.1), (0.28, 0.42), (0.16, 0.3)))
    apart = wide + _uniform(light, generator, 0.02, 0.12)
    middle = _uniform(light, generator, -0.1, 0.1)
    lens = ((columns - middle).abs() - apart) / wide
    inside = (lens**4 + ((rows - level) / high) ** 4) < 1
    bridge = ((columns - middle).abs() < apart) & ((rows - level).abs() < 0.05)
    return torch.where(inside | bridge, _uniform(light, generator, 0, 70) + 0.15 * light, light)


def _mask(light: Tensor, generator: torch.Generator) -> Tensor:
    """A mask, a scarf or a hand over the lower half of the face."""
    columns, rows = _places(light)
    top, bend = _uniform(light, generator, 0.0, 0.4), _uniform(light, generator, -0.3, 0.5)
    covered = rows > top + bend * columns**2 + _uniform(light, generator, -0.2, 0.2) * columns
    wide = columns.abs() < _uniform(light, generator, 0.6, 1.2)
    fold = 12 * torch.sin(rows * _uniform(light, generator, 3, 20))
    return torch.where(covered & wide, _uniform(light, generator, 30, 240) + fold + 0.1 * (light - 128), light)


DEGRADATIONS: Final[dict[str, Callable[[Tensor, torch.Generator], Tensor]]] = {
    "night": _night,
    "side-light": _side_light,
    "vignette": _vignette,
    "infrared": _infrared,
    "motion": _motion,
    "defocus": _defocus,
    "distant": _distant,
    "jpeg": _jpeg,
    "sunglasses": _sunglasses,
    "mask": _mask,
}
"""Every degradation by name."""
