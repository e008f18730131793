"""Random augmentation of training faces, in batches, on their device.

Faces are uint8 before and after, so that training sees the rounding and the median filter of the runtime.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fer_edge.train.degrade import degrade
from fer_edge.train.recipe import AugmentSpec

__all__ = ["augment_faces", "median_filter", "mix_faces"]


def augment_faces(faces: Tensor, spec: AugmentSpec, generator: torch.Generator) -> Tensor:
    """Augment every face at random.

    Args:
        faces: uint8 (B, S, S).
        generator: on the faces' device.

    Returns:
        uint8 (B, S, S).
    """
    batch, side = faces.shape[0], faces.shape[-1]
    device = faces.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    def signed(strength: float, *shape: int) -> Tensor:
        return (uniform(*shape) * 2 - 1) * strength

    chosen = faces.unsqueeze(1).float()
    grid = _affine_grid(chosen, spec, signed, uniform)
    light = torch.nn.functional.grid_sample(chosen, grid, padding_mode="border", align_corners=False)

    gamma = torch.exp2(signed(spec.gamma, 1, 1, 1))
    gain = 1 + signed(spec.gain, 1, 1, 1)
    ramp = torch.linspace(-0.5, 0.5, side, device=device)
    slope = signed(spec.gradient, 2, 1, 1, 1)
    light = 255 * (light / 255).clamp(0, 1) ** gamma
    light = (light - 127.5) * gain + 127.5 + slope[:, 0] * ramp + slope[:, 1] * ramp.unsqueeze(1)

    light = _blur(light, uniform(1, 1, 1) < spec.blur)
    deviation = uniform(1, 1, 1) * spec.noise * (uniform(1, 1, 1) < 0.5)
    noise = torch.randn(batch, 1, side, side, generator=generator, device=device)
    light = _erase(light + noise * deviation, spec.erase, uniform)
    light = degrade(light.clamp(0, 255), spec.degrade, generator)
    return light.squeeze(1).round_().clamp_(0, 255).to(torch.uint8)


def _affine_grid(faces: Tensor, spec: AugmentSpec, signed, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    angle = signed(spec.rotation_degrees) * (math.pi / 180)
    scale = torch.exp(signed(spec.scale))
    shear = signed(spec.shear)
    mirror = torch.where(uniform() < spec.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = signed(2 * spec.shift, 2)
    rows = (
        torch.stack((cosine * mirror, -sine + shear, shift[:, 0]), dim=1),
        torch.stack((sine * mirror, cosine, shift[:, 1]), dim=1),
    )
    matrix = torch.stack(rows, dim=1).unsqueeze(1).unsqueeze(1)
    side = faces.shape[-1]
    place = (torch.arange(side, device=faces.device) + 0.5) * (2 / side) - 1
    column, row = place.view(1, 1, side, 1), place.view(1, side, 1, 1)
    return column * matrix[..., 0] + row * matrix[..., 1] + matrix[..., 2]


def _blur(light: Tensor, chosen: Tensor) -> Tensor:
    """Apply the 3x3 binomial blur to the faces where `chosen`, bool (B, 1, 1, 1), is True."""
    rows = chosen.flatten().nonzero().squeeze(1)
    padded = torch.nn.functional.pad(light[rows], (1, 1, 1, 1), mode="replicate")
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.avg_pool2d(padded, 2, 1), 2, 1)
    return light.index_copy(0, rows, blurred)


def _erase(light: Tensor, chance: float, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    side = light.shape[-1]
    place = torch.arange(side, device=light.device, dtype=torch.float32)
    extent = (0.15 + 0.3 * uniform(2)) * side
    corner = uniform(2) * (side - extent)
    inside = (place >= corner.unsqueeze(2)) & (place < (corner + extent).unsqueeze(2))
    box = inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1) & (uniform(1, 1) < chance)
    return torch.where(box.unsqueeze(1), 255 * uniform(1, 1, 1), light)


def mix_faces(faces: Tensor, targets: Tensor, spec: AugmentSpec, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """With probability `spec.mix`, mix every face of the batch with another: by mixup or by CutMix, equally often.

    Args:
        faces: uint8 (B, S, S).
        targets: float (B, classes), mixed in the same proportion.
        generator: on the faces' device.

    Returns:
        faces uint8 (B, S, S) and targets (B, classes).
    """
    draw = torch.rand(5, generator=generator, device=faces.device).tolist()
    if draw[0] >= spec.mix:
        return faces, targets
    partner = torch.randperm(len(faces), generator=generator, device=faces.device)
    if draw[1] < 0.5:
        share = 0.5 + 0.5 * draw[2]
        mixed = faces.float() * share + faces[partner].float() * (1 - share)
        return mixed.round_().to(torch.uint8), targets * share + targets[partner] * (1 - share)
    side = faces.shape[-1]
    edge = int(side * math.sqrt(0.5 * draw[2]))
    top, left = int(draw[3] * (side - edge + 1)), int(draw[4] * (side - edge + 1))
    mixed = faces.clone()
    mixed[:, top : top + edge, left : left + edge] = faces[partner, top : top + edge, left : left + edge]
    share = 1 - edge * edge / (side * side)
    return mixed, targets * share + targets[partner] * (1 - share)


def median_filter(faces: Tensor, kernel: int) -> Tensor:
    """Apply a median filter with replicated borders, bit for bit as `cv2.medianBlur`.

    Args:
        faces: uint8 (B, S, S).
        kernel: 0 (no filter), 3 or 5.

    Returns:
        uint8 (B, S, S).
    """
    if kernel == 0:
        return faces
    reach = kernel // 2
    padded = torch.nn.functional.pad(faces.unsqueeze(1).float(), (reach,) * 4, mode="replicate").to(torch.uint8)
    windows = padded.squeeze(1).unfold(1, kernel, 1).unfold(2, kernel, 1)
    if kernel == 3:
        return _median_of_nine([windows[..., row, column] for row in range(3) for column in range(3)])
    return windows.flatten(3).median(dim=3).values


def _median_of_nine(planes: list[Tensor]) -> Tensor:
    """Compute the median of nine by a network of comparisons (Paeth 1990), 14 times as fast as sorting."""
    columns = [_sorted_three(*planes[start::3]) for start in range(3)]
    lowest, middle, highest = zip(*columns, strict=True)
    largest_low = torch.maximum(torch.maximum(lowest[0], lowest[1]), lowest[2])
    least_high = torch.minimum(torch.minimum(highest[0], highest[1]), highest[2])
    return _sorted_three(largest_low, _sorted_three(*middle)[1], least_high)[1]


def _sorted_three(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    inner = torch.minimum(high, c)
    return torch.minimum(low, inner), torch.maximum(low, inner), torch.maximum(high, c)
