"""Post-training quantization of the frame encoder by NNCF, on its ONNX graph; NNCF neither prints nor reports home."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from onnx import ModelProto, NodeProto, numpy_helper

from fer_edge.calibrate.recipe import HalfRange, PtqRange, PtqRecipe
from fer_edge.core.errors import InputError
from fer_edge.core.telemetry import quiet_nncf, without_telemetry
from fer_edge.core.types import Uint8
from fer_edge.graph.graph import GraphIndex, drop_dead_nodes, drop_unused
from fer_edge.graph.layers import find_nodes
from fer_edge.graph.lstm_forms import PRODUCT, rewrite_lstm
from fer_edge.graph.simplify import fold_constants
from fer_edge.graph.tensorrt_rewrites import cast_input_first

with without_telemetry():
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

__all__ = ["NNCF_VERSION", "float_nodes", "prepared_encoder", "quantize_encoder", "quantize_until"]

NNCF_VERSION: Final = str(nncf.__version__)

_RANGES: Final[dict[PtqRange, Any]] = {
    "histogram": RangeEstimatorParametersSet.HISTOGRAM,
    "mean": RangeEstimatorParametersSet.MEAN_MINMAX,
    "max": RangeEstimatorParametersSet.MINMAX,
    "percentile": RangeEstimatorParametersSet.MEAN_QUANTILE,
}
_WEIGHTED: Final = ("Conv", "Gemm", "MatMul", "LSTM")
_SEQUENTIAL: Final = ("LSTM", "MatMul")


def quantize_encoder(
    encoder: ModelProto,
    frames: Uint8,
    *,
    recipe: PtqRecipe,
    overflow_fix: HalfRange,
    only: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelProto:
    """The encoder with Q/DQ around its convolutions: int8 weights per channel, 8-bit activations per tensor.

    Float stay the normalisation (pixels to the first convolution), everything from the first LSTM or MatMul on, and
    what the recipe names. The map that the first MatMul reads is rounded (``recipe.round_map``), what it is multiplied
    by is not.

    Args:
        encoder: `frames` uint8 (N, S, S) -> `features`, `attention`; not changed.
        frames: uint8 (M, S, S) grey, prepared as the bundle says: the calibration sample.
        recipe: how.
        overflow_fix: which weights use half of the 8-bit range.
        only: names of nodes (`prepared_encoder` gives them) which are quantized and nothing else is, whatever the
            recipe keeps float.
        progress: called with (batches read, batches to read).

    Raises:
        InputError: no frame, or a node that the recipe names and the graph does not have.
    """
    model = prepared_encoder(encoder, recipe)
    batches = _batches(frames, recipe)
    # NNCF reads the sample once for the ranges and once more for each correction.
    passes = 1 + recipe.bias_correction + (recipe.smooth_quant is not None)
    fed = _Fed(total=passes * len(batches), progress=progress)
    with quiet_nncf(nncf):
        quantized: ModelProto = nncf.quantize(
            model,
            nncf.Dataset(batches, fed),
            ignored_scope=_ignored(model, recipe, only),
            advanced_parameters=_advanced(recipe, overflow_fix),
            **_common(recipe, len(batches)),
        )
    fed.finish()
    return _finished(quantized, model)


def quantize_until(
    encoder: ModelProto,
    frames: Uint8,
    *,
    recipe: PtqRecipe,
    overflow_fix: HalfRange,
    score: Callable[[ModelProto, Sequence[int]], tuple[float, list[float]]],
    items: int,
    max_drop: float,
    max_groups: int,
) -> ModelProto:
    """NNCF's accuracy-controlled quantization: as `quantize_encoder`, then groups of quantizers come out again.

    Args:
        encoder, frames, recipe, overflow_fix: as `quantize_encoder`.
        score: called with a graph and the numbers of the items to look at (all of them where the graph is judged, a few
            where groups are ranked); gives a figure that falls as the graph gets worse, and one for each item. The
            float graph's must not be 0: NNCF 3.4 divides by it, even where the drop is absolute.
        items: how many there are.
        max_drop: how far the figure may fall below the float graph's.
        max_groups: at most so many groups come out.

    Raises:
        InputError: as `quantize_encoder`.
    """
    model = prepared_encoder(encoder, recipe)
    batches = _batches(frames, recipe)
    with quiet_nncf(nncf):
        quantized: ModelProto = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(batches, lambda batch: {"frames": batch}),
            nncf.Dataset(list(range(items))),
            lambda graph, wanted: score(graph, [int(item) for item in wanted]),
            max_drop=max_drop,
            drop_type=nncf.DropType.ABSOLUTE,
            ignored_scope=_ignored(model, recipe, None),
            advanced_quantization_parameters=_advanced(recipe, overflow_fix),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=max_groups, ranking_subset_size=max(1, items // 4), num_ranking_workers=1
            ),
            **_common(recipe, len(batches)),
        )
    return _finished(quantized, model)


def prepared_encoder(encoder: ModelProto, recipe: PtqRecipe) -> ModelProto:
    """The graph that NNCF gets: constants folded, every node named, the LSTM written out where the recipe says so."""
    model = fold_constants(cast_input_first(encoder))
    if recipe.lstm == "projection":
        model = rewrite_lstm(_with_node_names(model), form="hoisted")
    return _with_node_names(model)


def float_nodes(encoder: ModelProto, recipe: PtqRecipe) -> list[str]:
    """Names of the nodes that stay float: normalisation, sequence part, the recipe's types and nodes.

    Raises:
        InputError: the graph has no node that could be quantized, or none of a name that the recipe gives.
    """
    index = GraphIndex(encoder)
    named = set(find_nodes(encoder, recipe.float_nodes, where="ptq.float_nodes"))
    first = next((node for node in encoder.graph.node if node.op_type in _WEIGHTED), None)
    if first is None:
        raise InputError(f"the encoder has none of {', '.join(_WEIGHTED)}: there is nothing to quantize")
    normalisation = index.ancestors([first.input[0]])
    sequence = index.descendants(node for node in encoder.graph.node if node.op_type in _SEQUENTIAL)
    inside = {node.name for node in (*normalisation, *sequence)}
    inside |= {node.name for node in encoder.graph.node if node.op_type in recipe.float_types}
    rounded = _projections(encoder, recipe)
    if recipe.round_map and (reader := _map_reader(encoder)) is not None and not named & _makers(index, reader):
        rounded.add(reader.name)
    return [node.name for node in encoder.graph.node if node.name in inside - rounded | named]


def _projections(model: ModelProto, recipe: PtqRecipe) -> set[str]:
    """The written-out LSTMs' products of the input, where the recipe quantizes them."""
    if recipe.lstm != "projection":
        return set()
    return {node.name for node in model.graph.node if node.op_type == "MatMul" and node.name.endswith(PRODUCT)}


def _map_reader(model: ModelProto) -> NodeProto | None:
    """The one product, with constants, through which the sequence part reads the convolutions' map: regions' means."""
    index = GraphIndex(model)
    sequential = [node for node in model.graph.node if node.op_type in _SEQUENTIAL]
    if not sequential or sequential[0].op_type != "MatMul":
        return None
    reader = sequential[0]
    behind = {node.name for node in index.descendants([reader])}
    alone = all(node.name in behind for node in sequential)
    return reader if alone and index.constant(reader.input[1]) is not None and _makers(index, reader) else None


def _makers(index: GraphIndex, reader: NodeProto) -> set[str]:
    """The last convolution, if any, among what a node's first input is computed from."""
    convolutions = [node for node in index.ancestors([reader.input[0]]) if node.op_type == "Conv"]
    earlier = {node.name for last in convolutions for node in index.ancestors([last.input[0]])}
    return {node.name for node in convolutions} - earlier


def _ignored(model: ModelProto, recipe: PtqRecipe, only: Collection[str] | None) -> Any:
    if only is None:
        names = float_nodes(model, recipe)
    else:
        names = [node.name for node in model.graph.node if node.name not in only]
    return nncf.IgnoredScope(names=names, validate=False)


def _common(recipe: PtqRecipe, batches: int) -> dict[str, Any]:
    return {
        "preset": nncf.QuantizationPreset(recipe.preset),
        "subset_size": batches,
        "fast_bias_correction": True,
        # NNCF smooths only what it is told to be a transformer.
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
        raise InputError("no frame to calibrate on")
    return [frames[start : start + recipe.batch] for start in range(0, len(frames), recipe.batch)]


def _finished(quantized: ModelProto, model: ModelProto) -> ModelProto:
    """Under the exporter's name, and with a float matrix where NNCF rounded the one that the map is multiplied by."""
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    reader = _map_reader(model)
    if reader is not None:
        [node] = [each for each in quantized.graph.node if each.name == reader.name]
        matrix = GraphIndex(model).constant(reader.input[1])
        if node.input[1] != reader.input[1] and matrix is not None:
            node.input[1] = GraphIndex(quantized).free_name(reader.input[1])
            quantized.graph.initializer.append(numpy_helper.from_array(matrix, node.input[1]))
            drop_dead_nodes(quantized)
            drop_unused(quantized)
    return quantized


class _Fed:
    """What NNCF calls for every batch: the feed, and a count of how many were asked for."""

    def __init__(self, *, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def __call__(self, batch: Uint8) -> dict[str, Uint8]:
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
