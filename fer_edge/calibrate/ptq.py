"""Post-training quantization of the frame encoder by NNCF, on its ONNX graph; NNCF neither prints nor reports home."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from fer_edge.calibrate.recipe import ActivationRange, HalfRange, PtqRecipe
from fer_edge.errors import InputError
from fer_edge.graph.fold import fold_constants
from fer_edge.graph.index import GraphIndex
from fer_edge.graph.input_cast import cast_input_first
from fer_edge.telemetry import quiet_nncf, without_telemetry

with without_telemetry():
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

__all__ = ["NNCF_VERSION", "float_nodes", "quantize_encoder"]

NNCF_VERSION: Final = str(nncf.__version__)

_RANGES: Final[dict[ActivationRange, Any]] = {
    "histogram": RangeEstimatorParametersSet.HISTOGRAM,
    "mean": RangeEstimatorParametersSet.MEAN_MINMAX,
    "max": RangeEstimatorParametersSet.MINMAX,
}
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul", "LSTM")
_SEQUENTIAL: Final = ("LSTM", "MatMul")


def quantize_encoder(
    encoder: ModelProto,
    frames: NDArray[np.uint8],
    *,
    recipe: PtqRecipe,
    overflow_fix: HalfRange,
    progress: Callable[[int, int], None] | None = None,
) -> ModelProto:
    """The encoder with Q/DQ around its convolutions: int8 weights per channel, 8-bit activations per tensor.

    Float stay the normalisation (pixels to the first convolution), everything from the first LSTM or MatMul on, and
    what the recipe names.

    Args:
        encoder: `frames` uint8 (N, S, S) -> `features`, `attention`; not changed.
        frames: uint8 (M, S, S) grey, prepared as the bundle says: the calibration sample.
        recipe: how.
        overflow_fix: which weights use half of the 8-bit range.
        progress: called with (batches read, batches to read).

    Raises:
        InputError: no frame, or a node that the recipe names and the graph does not have.
    """
    if not len(frames):
        raise InputError("no frame to calibrate on")
    model = _with_node_names(fold_constants(cast_input_first(encoder)))
    kept_float = float_nodes(model, recipe)
    batches = [frames[start : start + recipe.batch] for start in range(0, len(frames), recipe.batch)]
    # NNCF reads the sample once for the ranges and once more for each correction.
    passes = 1 + recipe.bias_correction + (recipe.smooth_quant is not None)
    fed = _Fed(total=passes * len(batches), progress=progress)
    ranges = _RANGES[recipe.activation_range]
    smoothing = AdvancedSmoothQuantParameters(
        convolution=-1 if recipe.smooth_quant is None else recipe.smooth_quant, matmul=-1
    )
    with quiet_nncf(nncf):
        quantized: ModelProto = nncf.quantize(
            model,
            nncf.Dataset(batches, fed),
            preset=nncf.QuantizationPreset(recipe.preset),
            subset_size=len(batches),
            fast_bias_correction=True,
            # NNCF smooths only what it is told to be a transformer.
            model_type=None if recipe.smooth_quant is None else nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=kept_float, types=list(recipe.float_types), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix(overflow_fix),
                disable_bias_correction=not recipe.bias_correction,
                # Per channel, ONNX Runtime refuses depthwise convolutions; TensorRT wants per tensor too.
                activations_quantization_params=QuantizationParameters(per_channel=False),
                activations_range_estimator_params=ranges,
                smooth_quant_alphas=smoothing,
            ),
        )
    fed.finish()
    quantized.producer_name, quantized.producer_version = encoder.producer_name, encoder.producer_version
    return quantized


def float_nodes(encoder: ModelProto, recipe: PtqRecipe) -> list[str]:
    """Names of the nodes that stay float whatever their type: normalisation, sequence part, the recipe's own.

    Raises:
        InputError: the graph has no node that could be quantized, or none of a name that the recipe gives.
    """
    index = GraphIndex(encoder)
    names = [node.name for node in encoder.graph.node]
    for name in recipe.float_nodes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise InputError(
                f"ptq.float_nodes: the encoder has no node {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    first = next((node for node in encoder.graph.node if node.op_type in _WEIGHTED), None)
    if first is None:
        raise InputError(f"the encoder has none of {', '.join(_WEIGHTED)}: there is nothing to quantize")
    normalisation = index.ancestors([first.input[0]])
    sequence = index.descendants(node for node in encoder.graph.node if node.op_type in _SEQUENTIAL)
    inside = {node.name for node in (*normalisation, *sequence)} | set(recipe.float_nodes)
    return [name for name in names if name in inside]


class _Fed:
    """What NNCF calls for every batch: the feed, and a count of how many were asked for."""

    def __init__(self, *, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        self._done = min(self._done + 1, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)
        return {"frames": batch}

    def finish(self) -> None:
        """NNCF may have needed fewer passes."""
        if self._progress is not None:
            self._progress(self._total, self._total)


def _with_node_names(model: ModelProto) -> ModelProto:
    """NNCF tells nodes apart by name, which ONNX leaves free."""
    taken: set[str] = set()
    for node in model.graph.node:
        name = node.name or f"{node.op_type}_{node.output[0]}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)
    return model
