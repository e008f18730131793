"""Passes that shorten a graph: fixed dimensions, constant folding, removal of redundant nodes."""

from __future__ import annotations

from collections.abc import Mapping

import onnxslim
from onnx import NodeProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph, TensorInfo, attribute

__all__ = ["fix_dimensions", "fold_constants", "remove_redundant_nodes"]

_LSTM_STATES = (5, 6)  # inputs: the initial hidden state and the initial cell


def fix_dimensions(graph: Graph, sizes: Mapping[str, int]) -> None:
    """Fix some of the graph's symbolic dimensions, in inputs, outputs and everything computed from them.

    Nodes stay; shape arithmetic becomes constant, for `fold_constants` to remove.

    Args:
        graph: edited in place.
        sizes: by symbol, for example ``{"T": 16}``; the other symbols stay dynamic.

    Raises:
        InputError: no input has such a symbol, a size below 1, or a node that does not fit the size.
    """
    known = dict.fromkeys(size for tensor in graph.inputs.values() for size in tensor.shape if isinstance(size, str))
    for symbol, size in sizes.items():
        if symbol not in known:
            raise InputError(f"dimension: got {symbol!r}, expected one of {', '.join(known) or 'none'}")
        if size < 1:
            raise InputError(f"dimension {symbol!r}: got {size}, expected 1 or more")
    graph.fix(sizes)


def fold_constants(graph: Graph) -> None:
    """Compute everything that does not depend on the inputs, merge nodes and drop unread ones, by onnxslim.

    Raises:
        InputError: folding made a dynamic dimension static or changed an input or output.
    """
    before = graph.inputs, graph.outputs, graph.opset, graph.ir_version
    folded = Graph(onnxslim.slim(graph.to_model()))
    if folded.inputs != before[0] or folded.opset != before[2] or not _same_outputs(graph, folded):
        raise InputError(
            f"constant folding: got inputs and outputs {folded.inputs} -> {folded.outputs}, expected {before[0]} -> "
            f"{before[1]}; use the graph without folding"
        )
    model = folded.to_model()
    model.ir_version = before[3]
    graph.reset(model)


def remove_redundant_nodes(graph: Graph) -> None:
    """Remove nodes that cost time and compute nothing; outputs keep their names.

    - Initial LSTM states of zeros: the operator's default. `rewrite_for_tensorrt` adds them again.
    - One of the two transpositions behind a bidirectional layer, as torch's exporter writes it.
    """
    for node in list(graph.nodes):
        if node.op_type == "LSTM":
            _remove_zero_states(node, graph)
        elif node.op_type == "Reshape":
            _merge_transpositions(node, graph)
    graph.prune()


def _same_outputs(before: Graph, after: Graph) -> bool:
    """Whether names, types and dynamic dimensions are the same; a size that was open without need may become known."""
    dynamic = {size for tensor in before.inputs.values() for size in tensor.shape if isinstance(size, str)}

    def same(old: TensorInfo, new: TensorInfo) -> bool:
        if (old.name, old.elem_type, len(old.shape)) != (new.name, new.elem_type, len(new.shape)):
            return False
        sizes = zip(old.shape, new.shape, strict=True)
        return all(one == other or not (isinstance(one, int) or one in dynamic) for one, other in sizes)

    pairs = zip(before.outputs.values(), after.outputs.values(), strict=False)
    return len(before.outputs) == len(after.outputs) and all(same(old, new) for old, new in pairs)


def _remove_zero_states(lstm: NodeProto, graph: Graph) -> None:
    inputs = list(lstm.input)
    for place in _LSTM_STATES:
        if len(inputs) > place and graph.is_zero(inputs[place]):
            inputs[place] = ""
    while not inputs[-1]:
        inputs.pop()
    graph.set_inputs(lstm, inputs)


def _merge_transpositions(reshape: NodeProto, graph: Graph) -> None:
    """(T, D, N, H) -> (T, N, D, H) -> (T, N, D·H) -> (N, T, D·H) without the way over (T, N, D, H)."""
    before, after = graph.producer(reshape.input[0]), graph.consumers(reshape.output[0])
    sizes = graph.constant(reshape.input[1])
    if before is None or before.op_type != "Transpose" or sizes is None or sizes.tolist() != [0, 0, -1]:
        return
    lstm, readers = graph.producer(before.input[0]), graph.consumers(before.output[0])
    from_lstm = lstm is not None and lstm.op_type == "LSTM" and before.input[0] == lstm.output[0]
    if not from_lstm or len(readers) != 1 or len(after) != 1 or after[0].op_type != "Transpose":
        return
    orders = attribute(before, "perm"), attribute(after[0], "perm")
    if orders != ([0, 2, 1, 3], [1, 0, 2]) or {before.output[0], reshape.output[0]} & set(graph.outputs):
        return
    del before.attribute[:], after[0].attribute[:]
    before.attribute.append(helper.make_attribute("perm", [2, 0, 1, 3]))
    after[0].op_type = "Identity"  # it stays where it makes an output
    graph.redirect(after[0].output[0], reshape.output[0])
