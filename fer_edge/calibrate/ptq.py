"""Post-training quantization of the frame encoder by NNCF, without its output and telemetry."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any, Final

from onnx import ModelProto, NodeProto

from fer_edge.calibrate.recipe import HalfRange, PtqRange, PtqRecipe
from fer_edge.core.errors import InputError
from fer_edge.core.nncf_output import quiet_nncf
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Progress, Uint8
from fer_edge.graph.graph import Graph
from fer_edge.graph.layers import find_nodes
from fer_edge.graph.simplify import fold_constants
from fer_edge.graph.tensorrt_rewrites import cast_input_first

with without_telemetry():
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

__all__ = [
    "NNCF_VERSION",
    "float_nodes",
    "prepared_encoder",
    "quantize_encoder",
]

NNCF_VERSION: Final = str(nncf.__version__)

_RANGES: Final[dict[PtqRange, Any]] = {
    "histogram": RangeEstimatorParametersSet.HISTOGRAM,
    "mean": RangeEstimatorParametersSet.MEAN_MINMAX,
    "max": RangeEstimatorParametersSet.MINMAX,
    "percentile": RangeEstimatorParametersSet.MEAN_QUANTILE,
}
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul", "LSTM")
_SEQUENTIAL: Final = ("LSTM", "MatMul")
_FLOAT_TYPES: Final = ("MatMul", "Mul", "Softmax", "ReduceSum")


def quantize_encoder(
    encoder: Graph,
    frames: Uint8,
    *,
    recipe: PtqRecipe,
    overflow_fix: HalfRange,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Graph:
    """Put Q/DQ around the encoder's convolutions: int8 weights per channel, 8-bit activations per tensor.

    Float stay the normalisation (pixels to the first convolution), everything from the first LSTM or MatMul on, and
    what the recipe names. The map that the first MatMul reads, for the means of the regions, is rounded to 8 bits, so
    that the operator that makes it computes in INT8; its matrix is not.

    Args:
        encoder: `frames` uint8 (N, S, S) -> `features`, `attention`; not changed.
        frames: uint8 (M, S, S) grey, the prepared calibration sample.
        recipe: quantization settings.
        overflow_fix: which weights use half of the 8-bit range.
        only: names of nodes (of `prepared_encoder`) to quantize; None quantizes what the recipe does not keep float.

    Raises:
        InputError: no frame.
        RecipeError: a node of the recipe that the graph does not have.
    """
    prepared = prepared_encoder(encoder)
    batches = _batches(frames, recipe)
    # NNCF reads the sample once for the ranges and once more for each correction, and may skip one.
    total = len(batches) * (1 + recipe.bias_correction)
    reads = itertools.count(1)

    def feed(batch: Uint8) -> dict[str, Uint8]:
        if progress is not None:
            progress("quantizing", min(next(reads), total), total)
        return {"frames": batch}

    with quiet_nncf(nncf):
        quantized = nncf.quantize(
            prepared.to_model(),
            nncf.Dataset(batches, feed),
            ignored_scope=_ignored(prepared, recipe, only),
            advanced_parameters=_advanced(recipe, overflow_fix),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(batches),
            fast_bias_correction=True,
        )
    if progress is not None:
        progress("quantizing", total, total)
    return _finished(quantized, prepared)


def prepared_encoder(encoder: Graph) -> Graph:
    """Copy the encoder as NNCF needs it: constants folded, nodes named."""
    prepared = encoder.copy()
    cast_input_first(prepared)
    fold_constants(prepared)
    _name_nodes(prepared)
    return prepared


def float_nodes(encoder: Graph, recipe: PtqRecipe) -> list[str]:
    """Name the nodes that stay float: normalisation, sequence part, the attention's operators, the recipe's nodes.

    Raises:
        InputError: the graph has no node to quantize.
        RecipeError: a node of the recipe that the graph does not have.
    """
    named = set(find_nodes(encoder, recipe.float_nodes, where="ptq.float_nodes"))
    first = next((node for node in encoder.nodes if node.op_type in _WEIGHTED), None)
    if first is None:
        raise InputError(f"the encoder: got no node to quantize, expected one of {', '.join(_WEIGHTED)}")
    normalisation = encoder.ancestors([first.input[0]])
    sequence = encoder.descendants(node for node in encoder.nodes if node.op_type in _SEQUENTIAL)
    inside = {node.name for node in (*normalisation, *sequence)}
    inside |= {node.name for node in encoder.nodes if node.op_type in _FLOAT_TYPES}
    reader = _map_reader(encoder)
    rounded = set() if reader is None or named & _map_convolutions(encoder, reader) else {reader.name}
    return [node.name for node in encoder.nodes if node.name in inside - rounded | named]


def _map_reader(graph: Graph) -> NodeProto | None:
    """The single constant product (means of regions) through which the sequence part reads the convolutions' map."""
    sequential = [node for node in graph.nodes if node.op_type in _SEQUENTIAL]
    if not sequential or sequential[0].op_type != "MatMul":
        return None
    reader = sequential[0]
    after = {node.name for node in graph.descendants([reader])}
    single = all(node.name in after for node in sequential)
    has_map = graph.constant(reader.input[1]) is not None and _map_convolutions(graph, reader)
    return reader if single and has_map else None


def _map_convolutions(graph: Graph, reader: NodeProto) -> set[str]:
    """The last convolution, if any, that a node's first input is computed from."""
    convolutions = [node for node in graph.ancestors([reader.input[0]]) if node.op_type == "Conv"]
    earlier = {node.name for last in convolutions for node in graph.ancestors([last.input[0]])}
    return {node.name for node in convolutions} - earlier


def _ignored(graph: Graph, recipe: PtqRecipe, only: Collection[str] | None) -> Any:
    names = float_nodes(graph, recipe) if only is None else [each.name for each in graph.nodes if each.name not in only]
    return nncf.IgnoredScope(names=names, validate=False)


def _advanced(recipe: PtqRecipe, overflow_fix: HalfRange) -> Any:
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix(overflow_fix),
        disable_bias_correction=not recipe.bias_correction,
        # Per channel, ONNX Runtime refuses depthwise convolutions; TensorRT wants per tensor too.
        activations_quantization_params=QuantizationParameters(per_channel=False),
        activations_range_estimator_params=_RANGES[recipe.activation_range],
    )


def _batches(frames: Uint8, recipe: PtqRecipe) -> list[Uint8]:
    if not len(frames):
        raise InputError("calibration frames: got none, expected one or more")
    return [frames[start : start + recipe.batch] for start in range(0, len(frames), recipe.batch)]


def _finished(quantized: ModelProto, prepared: Graph) -> Graph:
    """Keep the exporter's name, and the float matrix where NNCF rounded the one that the map is multiplied by."""
    result = Graph(quantized)
    result.made_by = prepared.made_by
    reader = _map_reader(prepared)
    if reader is not None:
        [node] = [each for each in result.nodes if each.name == reader.name]
        matrix = prepared.constant(reader.input[1])
        if node.input[1] != reader.input[1] and matrix is not None:
            result.set_inputs(node, [node.input[0], result.add_constant(reader.input[1], matrix)])
            result.prune()
    return result


def _name_nodes(graph: Graph) -> None:
    """Give every node a name of its own: NNCF identifies nodes by name, which ONNX leaves free."""
    taken: set[str] = set()
    for node in graph.nodes:
        name = node.name or f"{node.op_type}_{node.output[0]}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)
