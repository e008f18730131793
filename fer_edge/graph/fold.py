"""Constant folding that leaves a graph's inputs and outputs as they were."""

from __future__ import annotations

import onnxslim
from onnx import ModelProto

from fer_edge.core.errors import InputError
from fer_edge.graph.info import GraphInfo, describe_graph

__all__ = ["fold_constants"]


def fold_constants(model: ModelProto) -> ModelProto:
    """Compute what does not depend on the inputs, merge what can be merged, drop what nothing reads.

    The work is onnxslim's; that inputs, outputs and dynamic dimensions survive it is checked here.

    Args:
        model: not changed.

    Raises:
        InputError: folding made a dynamic dimension static or changed an input or output.
    """
    given = ModelProto()
    given.CopyFrom(model)
    folded: ModelProto = onnxslim.slim(given)
    folded.ir_version = model.ir_version
    before, after = describe_graph(model), describe_graph(folded)
    if not _same_face(before, after):
        raise InputError(
            f"folding changed the graph's inputs and outputs: before {before.inputs} -> {before.outputs}, "
            f"after {after.inputs} -> {after.outputs}; use the graph unfolded"
        )
    return folded


def _same_face(before: GraphInfo, after: GraphInfo) -> bool:
    if before.inputs != after.inputs or before.opset != after.opset or len(before.outputs) != len(after.outputs):
        return False
    dynamic = {size for tensor in before.inputs for size in tensor.shape if isinstance(size, str)}
    for old, new in zip(before.outputs, after.outputs, strict=True):
        if (old.name, old.dtype, len(old.shape)) != (new.name, new.dtype, len(new.shape)):
            return False
        for old_size, new_size in zip(old.shape, new.shape, strict=True):
            # A size that the exporter left open, though it is the same for every input, may become known.
            if old_size != new_size and (isinstance(old_size, int) or old_size in dynamic):
                return False
    return True
