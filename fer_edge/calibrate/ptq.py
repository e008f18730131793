"""Post-training quantization of the frame encoder by NNCF, without its output and telemetry."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from onnx import ModelProto, NodeProto

from fer_edge.calibrate.recipe import HalfRange, PtqRange, PtqRecipe
from fer_edge.core.errors import InputError
from fer_edge.core.telemetry import quiet_nncf, without_telemetry
from fer_edge.core.types import Progress, Uint8
from fer_edge.graph.graph import Graph
from fer_edge.graph.layers import find_nodes
from fer_edge.graph.lstm_forms import PRODUCT, rewrite_lstm
from fer_edge.graph.simplify import fold_constants
from fer_edge.graph.tensorrt_rewrites import cast_input_first

with without_telemetry():
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

__all__ = [
    "NNCF_VERSION",
    "AccuracySearch",
    "float_nodes",
    "prepared_encoder",
    "quantize_encoder",
    "quantize_with_accuracy_control",
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


@dataclass(frozen=True, kw_only=True)
class AccuracySearch:
    """The search of NNCF's accuracy control.

    Attributes:
        score: called with a graph and the numbers of items to look at (all where the graph is judged, a few where
            groups are ranked); returns a figure that falls as the graph gets worse, and one for each item. The float
            graph's must not be 0: NNCF 3.4 divides by it, even where the drop is absolute.
        items: number of items.
        max_drop: how far the figure may fall below the float graph's.
        max_groups: most groups of quantizers that return to float.
    """

    score: Callable[[Graph, Sequence[int]], tuple[float, list[float]]]
    items: int
    max_drop: float
    max_groups: int


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
    what the recipe names. The map that the first MatMul reads is rounded (``recipe.round_map``); its matrix is not.

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
    prepared = prepared_encoder(encoder, recipe)
    batches = _batches(frames, recipe)
    # NNCF reads the sample once for the ranges and once more for each correction, and may skip one.
    total = len(batches) * (1 + recipe.bias_correction + (recipe.smooth_quant is not None))
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
            **_common(recipe, len(batches)),
        )
    if progress is not None:
        progress("quantizing", total, total)
    return _finished(quantized, prepared)


def quantize_with_accuracy_control(
    encoder: Graph,
    frames: Uint8,
    *,
    recipe: PtqRecipe,
    overflow_fix: HalfRange,
    search: AccuracySearch,
) -> Graph:
    """Quantize as `quantize_encoder`, then return groups of quantizers to float until the accuracy suffices.

    Raises:
        InputError, RecipeError: as `quantize_encoder`.
    """
    prepared = prepared_encoder(encoder, recipe)
    batches = _batches(frames, recipe)
    with quiet_nncf(nncf):
        quantized = nncf.quantize_with_accuracy_control(
            prepared.to_model(),
            nncf.Dataset(batches, lambda batch: {"frames": batch}),
            nncf.Dataset(list(range(search.items))),
            lambda model, wanted: search.score(Graph(model), [int(item) for item in wanted]),
            max_drop=search.max_drop,
            drop_type=nncf.DropType.ABSOLUTE,
            ignored_scope=_ignored(prepared, recipe, None),
            advanced_quantization_parameters=_advanced(recipe, overflow_fix),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=search.max_groups,
                ranking_subset_size=max(1, search.items // 4),
                num_ranking_workers=1,
            ),
            **_common(recipe, len(batches)),
        )
    return _finished(quantized, prepared)


def prepared_encoder(encoder: Graph, recipe: PtqRecipe) -> Graph:
    """Copy the encoder as NNCF needs it: constants folded, nodes named, the LSTM hoisted where the recipe wants it."""
    prepared = encoder.copy()
    cast_input_first(prepared)
    fold_constants(prepared)
    if recipe.lstm == "projection":
        _name_nodes(prepared)
        rewrite_lstm(prepared, form="hoisted")
    _name_nodes(prepared)
    return prepared


def float_nodes(encoder: Graph, recipe: PtqRecipe) -> list[str]:
    """Name the nodes that stay float: normalisation, sequence part, the recipe's types and nodes.

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
    inside |= {node.name for node in encoder.nodes if node.op_type in recipe.float_types}
    rounded: set[str] = set()
    if recipe.lstm == "projection":
        rounded = {node.name for node in encoder.nodes if node.op_type == "MatMul" and node.name.endswith(PRODUCT)}
    reader = _map_reader(encoder)
    if recipe.round_map and reader is not None and not named & _map_convolutions(encoder, reader):
        rounded.add(reader.name)
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


def _common(recipe: PtqRecipe, batches: int) -> dict[str, Any]:
    return {
        "preset": nncf.QuantizationPreset(recipe.preset),
        "subset_size": batches,
        "fast_bias_correction": True,
        # NNCF applies SmoothQuant to transformers only.
        "model_type": None if recipe.smooth_quant is None else nncf.ModelType.TRANSFORMER,
    }


def _advanced(recipe: PtqRecipe, overflow_fix: HalfRange) -> Any:
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix(overflow_fix),
        disable_bias_correction=not recipe.bias_correction,
        # Per channel, ONNX Runtime refuses depthwise convolutions; TensorRT wants per tensor too.
        activations_quantization_params=QuantizationParameters(per_channel=False),
        activations_range_estimator_params=_RANGES[recipe.activation_range],
        smooth_quant_alphas=AdvancedSmoothQuantParameters(
            convolution=-1 if recipe.smooth_quant is None else recipe.smooth_quant, matmul=-1
        ),
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
