"""Compare the network on a CUDA GPU with the same network on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import torch

from fer_edge.core.errors import SessionError
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm

__all__ = ["cuda_difference", "cuda_fault"]


def cuda_fault() -> str | None:
    """Return why torch cannot compute on a CUDA GPU here, or None where it can."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return f"torch {torch.__version__} finds no CUDA GPU"


def cuda_difference() -> float:
    """Return the largest difference of any logit between GPU and CPU, for a network with seeded weights.

    Both compute in FP32, without TF32, on frames uint8 (4, 16, S, S) of noise.

    Raises:
        SessionError: torch cannot compute on a CUDA GPU here.
    """
    if fault := cuda_fault():
        raise SessionError(fault)
    torch.manual_seed(0)
    config = ModelConfig()
    on_cpu = AttentionCnnBiLstm(config).eval()
    on_gpu = copy.deepcopy(on_cpu).cuda()
    shape = (4, 16, config.input_size, config.input_size)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    length = torch.full(shape[:1], shape[1])
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = on_cpu(frames, length)
        got = on_gpu(frames.cuda(), length.cuda()).cpu()
    return float((got - expected).abs().max())
