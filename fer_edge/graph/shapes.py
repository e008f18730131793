"""Open dimensions of a graph made numbers."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import ModelProto

from fer_edge.core.errors import InputError

__all__ = ["fix_dimensions", "open_dimensions"]


def fix_dimensions(model: ModelProto, sizes: Mapping[str, int]) -> ModelProto:
    """Give a size to some of the graph's symbolic dimensions, in inputs, outputs and all that follows from them.

    Nodes stay as they are; what they compute of shapes becomes constant, for `fold_constants` to take out.

    Args:
        model: not changed.
        sizes: by symbol, for example ``{"T": 16}``; the other symbols stay open.

    Raises:
        InputError: no input has such a symbol, a size below 1, or a node that refuses the size.
    """
    known = open_dimensions(model)
    for symbol, size in sizes.items():
        if symbol not in known:
            raise InputError(f"the graph has no open dimension {symbol!r}, only {', '.join(known) or 'none'}")
        if size < 1:
            raise InputError(f"dimension {symbol!r}: got {size}, expected 1 or more")
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    for value in (*result.graph.input, *result.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    try:
        return onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"the graph does not take {dict(sizes)}: {' '.join(str(error).split())}") from error


def open_dimensions(model: ModelProto) -> tuple[str, ...]:
    """Symbols of the inputs' open dimensions, in the order they appear."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        dict.fromkeys(
            dimension.dim_param
            for value in model.graph.input
            if value.name not in weights
            for dimension in value.type.tensor_type.shape.dim
            if dimension.dim_param
        )
    )
