"""The LSTM without a loop: its steps one after the other in the graph.

TensorRT runs the node of ONNX as a loop with the input's product inside, one small product a step. Unrolled, X·W + b of
all steps and both directions is one matrix product. It needs a fixed number of steps; an engine has no loop and can
record one run as a CUDA graph.

Both directions are stacked in each step, so a bidirectional layer of T steps has T small products, not 2 T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array, Float32
from fer_edge.graph.graph import Graph, attribute

__all__ = ["CELL", "unroll_lstm", "unusual_lstm"]

CELL: Final = "/cell/"
"""Part of the names of a rewritten LSTM's cell nodes: everything after the two matrix products of a step."""

_DEFAULT_ACTIVATIONS: Final = ("sigmoid", "tanh", "tanh")
_LONGEST: Final = 64  # steps; beyond that the graph grows faster than any engine gains


def unroll_lstm(graph: Graph) -> None:
    """Write every LSTM node step by step; outputs keep their names, shapes and values.

    Weights stored as int8 are restored to float: a step reads them directly, where the node would dequantize them in
    every run.

    Args:
        graph: edited in place.

    Raises:
        InputError: an LSTM that is not plain (`unusual_lstm`), or whose number of steps is not fixed or above 64.
    """
    if all(node.op_type != "LSTM" for node in graph.nodes):
        return
    shapes = graph.infer()
    body: list[NodeProto] = []
    constants: list[TensorProto] = []
    for node in graph.nodes:
        if node.op_type != "LSTM":
            body.append(node)
            continue
        if reason := unusual_lstm(node, graph):
            raise InputError(f'LSTM {node.name!r}: {reason}; keep the loop (lstm = "loop")')
        shape = shapes[node.input[0]].shape if node.input[0] in shapes else ()
        count = shape[0] if shape else None
        if not isinstance(count, int) or not 1 <= count <= _LONGEST:
            raise InputError(
                f"LSTM {node.name!r}: got {count if isinstance(count, int) else 'a dynamic number'} of steps, expected "
                f"a fixed number up to {_LONGEST}; fix the time dimension first"
            )
        writer = _Writer(node, graph)
        writer.unrolled(count)
        body += writer.nodes
        constants += writer.constants
    graph.initializers |= {tensor.name: tensor for tensor in constants}
    graph.set_nodes(body)
    graph.prune()


def unusual_lstm(node: NodeProto, graph: Graph) -> str | None:
    """Say why an LSTM node is not plain; None where it is.

    Plain: layout 0, no clip, no peepholes, no coupled gates, no lengths, sigmoid and tanh, constant weights.
    """
    directions = 2 if attribute(node, "direction", b"forward") == b"bidirectional" else 1
    activations = tuple(each.decode().lower() for each in attribute(node, "activations", []))
    given = {position: name for position, name in enumerate(node.input) if name}
    computed = any(graph.stored_constant(given[position]) is None for position in (1, 2, 3) if position in given)
    reasons = {
        f"got the activations {', '.join(activations)}, expected sigmoid, tanh, tanh": activations
        not in ((), _DEFAULT_ACTIVATIONS * directions),
        "got a clip, expected none": attribute(node, "clip") is not None,
        "got coupled gates (input_forget), expected separate ones": attribute(node, "input_forget", 0),
        "got layout 1, expected 0 (time first)": attribute(node, "layout", 0),
        "got the length of each sequence as an input, expected none": 4 in given,
        "got peepholes, expected none": 7 in given,
        "got computed weights, expected constants": computed,
    }
    return next((reason for reason, found in reasons.items() if found), None)


@dataclass(frozen=True)
class _Weights:
    """An LSTM's numbers: `product` (I, D·4H), `bias` (D·4H,), `recurrent` (D, H, 4H)."""

    product: Float32
    bias: Float32
    recurrent: Float32


class _Writer:
    """Writes one LSTM in elementary nodes."""

    def __init__(self, node: NodeProto, graph: Graph) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._graph = graph
        self._base = graph.free_name(node.name or f"lstm_{next(filter(None, node.output))}")
        self._direction = attribute(node, "direction", b"forward").decode()
        self._hidden = int(attribute(node, "hidden_size"))
        self._outputs = [*node.output, "", "", ""][:3]
        self._inputs = [*node.input, *[""] * 8][:8]
        self._directions = 2 if self._direction == "bidirectional" else 1
        self._weights = self._read_weights()

    def unrolled(self, steps: int) -> None:
        """T steps, one after the other."""
        gates = self._split_steps(self._product(), steps)
        hidden, cell = self._initial(0), self._initial(1)
        kept = []
        for step, gate in enumerate(gates):
            hidden, cell = self._step(gate, hidden, cell, f"{step}")
            kept.append(self._add("Unsqueeze", [hidden, self._ints("zero", [0])], f"step_{step}"))
        stacked = kept[0] if steps == 1 else self._add("Concat", kept, "steps", axis=0)
        self._finish(stacked, hidden, cell)

    def _read_weights(self) -> _Weights:
        def read(position: int) -> Array | None:
            name = self._inputs[position]
            return None if not name else self._graph.stored_constant(name)

        weight, recurrent, bias = read(1), read(2), read(3)
        assert weight is not None  # unusual_lstm checks it
        assert recurrent is not None
        size = 4 * self._hidden
        both = np.zeros((self._directions, size)) if bias is None else bias[:, :size] + bias[:, size:]
        return _Weights(
            product=np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]).T, np.float32),
            bias=both.reshape(-1).astype(np.float32),
            recurrent=np.ascontiguousarray(recurrent.transpose(0, 2, 1), np.float32),
        )

    def _product(self) -> str:
        """X·W + b of every step, float32 (T, D, B, 4H), a reverse direction's steps already in its own order."""
        product = self._add("MatMul", [self._inputs[0], self._floats("input_weight", self._weights.product)], "product")
        biased = self._add("Add", [product, self._floats("input_bias", self._weights.bias)], "biased")
        if self._directions == 1:
            gates = self._add("Unsqueeze", [biased, self._ints("one", [1])], "gates")
        else:
            shape = self._ints("gate_shape", [0, 0, self._directions, 4 * self._hidden])
            split = self._add("Reshape", [biased, shape], "by_direction")
            gates = self._add("Transpose", [split], "gates", perm=[0, 2, 1, 3])
        return self._turned(gates, "gates")

    def _turned(self, tensor: str, what: str) -> str:
        """`tensor` (T, D, ...) with the steps of the reverse direction in the opposite order; its own inverse."""
        if self._direction == "forward":
            return tensor
        if self._direction == "reverse":
            return self._backwards(tensor, what)
        halves = [self._name(f"{what}_forward"), self._name(f"{what}_reverse")]
        sizes = self._ints("each", [1, 1])
        self.nodes.append(helper.make_node("Split", [tensor, sizes], halves, self._name(f"{what}_split"), axis=1))
        return self._add("Concat", [halves[0], self._backwards(halves[1], what)], f"{what}_turned", axis=1)

    def _backwards(self, tensor: str, what: str) -> str:
        bounds = [self._ints("minus_one", [-1]), self._ints("before_all", [np.iinfo(np.int64).min])]
        return self._add(
            "Slice", [tensor, *bounds, self._ints("zero", [0]), self._ints("minus_one", [-1])], f"{what}_backwards"
        )

    def _split_steps(self, gates: str, steps: int) -> list[str]:
        if steps == 1:
            return [self._add("Squeeze", [gates, self._ints("zero", [0])], "gate_0")]
        parts = [self._name(f"gates_{step}") for step in range(steps)]
        sizes = self._ints("steps_each", [1] * steps)
        self.nodes.append(helper.make_node("Split", [gates, sizes], parts, self._name("split_steps"), axis=0))
        return [
            self._add("Squeeze", [part, self._ints("zero", [0])], f"gate_{step}") for step, part in enumerate(parts)
        ]

    def _initial(self, which: int) -> str:
        """The initial hidden (0) or cell (1) state, (D, B, H); empty where it is zero."""
        name = self._inputs[5 + which]
        return "" if not name or self._graph.is_zero(name) else name

    def _step(self, gate: str, hidden: str, cell: str, step: str) -> tuple[str, str]:
        """One step of the cell: the gates' input part (D, B, 4H) and both states to both new states."""
        size, at = self._hidden, f"{CELL[1:]}{step}_"
        if hidden:
            product = self._add("MatMul", [hidden, self._floats("recurrent", self._weights.recurrent)], f"recur_{step}")
            gate = self._add("Add", [gate, product], f"{at}gates")
        opened, proposed = self._name(f"{at}opened"), self._name(f"{at}proposed")
        sizes = self._ints("gate_sizes", [3 * size, size])
        self.nodes.append(
            helper.make_node("Split", [gate, sizes], [opened, proposed], self._name(f"{at}split"), axis=2)
        )
        sigmoid = self._add("Sigmoid", [opened], f"{at}sigmoid")
        tanh = self._add("Tanh", [proposed], f"{at}tanh")
        entry, leave, forget = (self._name(f"{at}{part}") for part in ("input", "output", "forget"))
        thirds = self._ints("thirds", [size] * 3)
        self.nodes.append(
            helper.make_node("Split", [sigmoid, thirds], [entry, leave, forget], self._name(f"{at}gate_split"), axis=2)
        )
        after = self._add("Mul", [entry, tanh], f"{at}new")
        if cell:
            after = self._add("Add", [self._add("Mul", [forget, cell], f"{at}old"), after], f"{at}state")
        return self._add("Mul", [leave, self._add("Tanh", [after], f"{at}shown")], f"{at}hidden"), after

    def _finish(self, stacked: str, hidden: str, cell: str) -> None:
        """Name the three outputs as the node does: Y (T, D, B, H), Y_h and Y_c (D, B, H)."""
        everything, last, final = self._outputs
        if everything:
            self._rename(self._turned(stacked, "states"), everything)
        if last:
            self._rename(hidden, last)
        if final:
            self._rename(cell, final)

    def _rename(self, tensor: str, name: str) -> None:
        self.nodes.append(helper.make_node("Identity", [tensor], [name], self._name("named")))

    def _add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        output = self._name(name)
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def _name(self, name: str) -> str:
        return self._graph.free_name(f"{self._base}/{name}")

    def _ints(self, name: str, values: Any) -> str:
        return self._constant(name, np.asarray(values, np.int64))

    def _floats(self, name: str, values: Any) -> str:
        return self._constant(name, np.asarray(values, np.float32))

    def _constant(self, name: str, values: Array) -> str:
        full = f"{self._base}/constant/{name}"
        if all(tensor.name != full for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(values, full))
        return full
