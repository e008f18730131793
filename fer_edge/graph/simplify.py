"""Constant folding and removal of redundant nodes; inputs and outputs stay as they are."""

from __future__ import annotations

import onnxslim
from onnx import ModelProto, NodeProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.cost import GraphInfo, describe_graph
from fer_edge.graph.graph import GraphIndex, attribute, drop_dead_nodes, drop_unused, is_zero

__all__ = ["fold_constants", "lean"]


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


_STATES = (5, 6)  # of an LSTM's inputs: the initial hidden state and the initial cell


def lean(model: ModelProto) -> ModelProto:
    """The same function with fewer nodes; outputs keep their names.

    - An LSTM's initial states of zeros are left out, with what gives them the batch's size: zeros are what the operator
      takes where there are none.
    - A bidirectional layer's output goes from the operator's order (steps, directions, batch, hidden) to the order of a
      batch in one transposition, where the exporter writes two.

    Args:
        model: not changed.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    for node in result.graph.node:
        if node.op_type == "LSTM":
            _leave_zero_states_out(node, index)
        elif node.op_type == "Reshape":
            _transpose_once(node, index)
    drop_dead_nodes(result)
    drop_unused(result)
    return result


def _leave_zero_states_out(lstm: NodeProto, index: GraphIndex) -> None:
    inputs = list(lstm.input)
    for place in _STATES:
        if len(inputs) > place and is_zero(index, inputs[place]):
            inputs[place] = ""
    while not inputs[-1]:
        inputs.pop()
    lstm.input[:] = inputs


def _transpose_once(reshape: NodeProto, index: GraphIndex) -> None:
    """(T, D, N, H) -> (T, N, D, H) -> (T, N, D·H) -> (N, T, D·H) without the way over (T, N, D, H)."""
    before, behind = index.producer(reshape.input[0]), index.consumers(reshape.output[0])
    sizes = index.constant(reshape.input[1])
    if before is None or before.op_type != "Transpose" or sizes is None or sizes.tolist() != [0, 0, -1]:
        return
    made, read = index.producer(before.input[0]), index.consumers(before.output[0])
    from_lstm = made is not None and made.op_type == "LSTM" and before.input[0] == made.output[0]
    if not from_lstm or len(read) != 1 or len(behind) != 1 or behind[0].op_type != "Transpose":
        return
    after = behind[0]
    orders = attribute(before, "perm"), attribute(after, "perm")
    if orders != ([0, 2, 1, 3], [1, 0, 2]) or {before.output[0], reshape.output[0]} & set(index.outputs):
        return
    del before.attribute[:], after.attribute[:]
    before.attribute.append(helper.make_attribute("perm", [2, 0, 1, 3]))
    after.op_type = "Identity"
    for reader in index.consumers(after.output[0]):
        reader.input[:] = [reshape.output[0] if name == after.output[0] else name for name in reader.input]
