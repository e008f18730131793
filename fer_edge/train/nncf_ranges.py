"""Calibration ranges for quantization-aware training, from NNCF's torch backend.

NNCF places and calibrates the quantizers. `fer_edge.model.fake_quantization` rounds: NNCF's own training kernels
are compiled on first use (by nvcc on a GPU), its `strip` needs torchao, and it has no half-range weights.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import ActivationRange
from fer_edge.core.nncf_output import quiet_nncf
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Uint8
from fer_edge.model.deploy import fold_batch_norm
from fer_edge.model.fake_quantization import quantisers
from fer_edge.model.network import FrameEncoder

with without_telemetry():
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    from nncf.torch.function_hook.hook_storage import decode_hook_name
    from nncf.torch.function_hook.wrapper import get_hook_storage

__all__ = ["NNCF_VERSION", "calibrate_ranges"]

NNCF_VERSION: Final = str(nncf.__version__)

_RANGES: Final[dict[ActivationRange, Any]] = {
    "histogram": RangeEstimatorParametersSet.HISTOGRAM,
    "mean": RangeEstimatorParametersSet.MEAN_MINMAX,
    "max": RangeEstimatorParametersSet.MINMAX,
}

# As in the ONNX graph: the normalisation, and everything after the first LSTM or matrix product.
_FLOAT: Final = (r"normalise/.*", r"(bilstm|shortcut|attention|output)/.*", r"/(flatten|transpose|add|mean)/.*")


def calibrate_ranges(
    encoder: FrameEncoder,
    rounding: FrameEncoder,
    frames: Uint8,
    *,
    activation_range: ActivationRange,
    batch: int,
) -> None:
    """Set the ranges of `rounding` to those that NNCF calibrates on `encoder`.

    Args:
        encoder: trained, plain; not changed.
        rounding: its `quantised` copy.
        frames: uint8 (M, S, S) grey, prepared: the calibration sample.
        activation_range: how NNCF estimates the range of an activation.

    Raises:
        InputError: NNCF quantizes other tensors than `rounding` does.
    """
    plain = fold_batch_norm(encoder).cpu()
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # NNCF hooks what an operator returns
    batches = [torch.from_numpy(np.array(frames[start : start + batch])) for start in range(0, len(frames), batch)]
    with quiet_nncf(nncf), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hooked = nncf.quantize(
            plain,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(patterns=list(_FLOAT), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE,  # the INT8 form decides on half-range weights
                disable_bias_correction=True,
                activations_quantization_params=QuantizationParameters(per_channel=False),
                activations_range_estimator_params=_RANGES[activation_range],
            ),
        )
    found = {_module_of(name): quantizer for name, quantizer in get_hook_storage(hooked).named_hooks()}
    known = quantisers(rounding)
    if found.keys() != known.keys():
        alone = sorted(found.keys() - known.keys()), sorted(known.keys() - found.keys())
        raise InputError(
            f"NNCF {NNCF_VERSION}: got additional quantizers {', '.join(alone[0]) or 'none'} and missing ones "
            f"{', '.join(alone[1]) or 'none'}; install the version of the extra 'calibrate'"
        )
    for name, quantiser in known.items():
        quantiser.set_range(found[name].scale)


def _module_of(hook: str) -> str:
    """Return the module of the `quantised` encoder at the operator that NNCF hooked."""
    kind, operator, _ = decode_hook_name(hook)
    if operator.startswith("normalise/"):
        return "normalise.1"
    path, name, call = operator.replace("/", ".").rsplit(".", 2)
    if kind == "pre_hooks":  # a convolution's weights
        return f"{path}.quantiser"
    if name == "conv2d":  # the summand of a residual addition
        return re.sub(r"\.0$", ".1", path)
    if path.endswith(".relu"):  # a block's own, called twice
        return f"{path}.quantiser" if call == "0" else f"{path.removesuffix('.relu')}.output.quantiser"
    return f"{path}.quantiser"
