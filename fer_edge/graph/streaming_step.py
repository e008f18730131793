"""The sequence head as one step of a stream, with the window as input and output state.

A server that keeps state between requests (Triton's sequence batcher) needs no code of its own: the graph shifts the
window, counts its frames and computes probabilities.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, compose, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph, TensorInfo

__all__ = ["STEP_CONTROLS", "STEP_STATES", "step_graph"]

STEP_STATES: Final = (("length", "next_length"), ("window", "next_window"))
"""(input, output) of each state, in one order when sorted by either name: Triton pairs states by that order, not by the
names in its configuration (triton-inference-server/server #8586)."""

STEP_CONTROLS: Final = ("ready", "start")
"""Inputs that the server sets, not the client."""

_HEAD: Final = "head/"
_OLDEST_OPSET: Final = 13  # Squeeze and Unsqueeze take their axes as an input from here on


def step_graph(head: Graph, *, window: int, temperature: float) -> Graph:
    """Build the graph from one frame's feature and the current window to the next window and the probabilities.

    The window is that of `fer_edge.runtime.feature_window` for frames at the model's rate: the newest feature is last,
    the oldest of a full window is dropped, and a window that is not full repeats its oldest feature in front.

    Args:
        head: `features` float32 (B, T, F), `length` int64 (B,) -> `logits` float32 (B, C), ...; not changed.
        window: frames T of a full window.
        temperature: of the variant; logits are divided by it before the softmax.

    Returns:
        A graph with B dynamic. Inputs: `feature` float32 (B, F); the state, `window` float32 (B, T, F) and `length`
        int32 (B, 1); the controls, `start` int32 (B, 1), not 0 where a sequence begins and the state is to be ignored,
        and `ready` int32 (B, 1), 0 where there is no frame and the state is to be kept. Outputs: `probabilities`
        float32 (B, C), rows of sum 1, without meaning where `ready` is 0; `next_window` and `next_length`.

    Raises:
        InputError: not such a head, or a window or temperature out of range.
    """
    if window < 1 or not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"window, temperature: got {window} and {temperature}, expected both above 0")
    width, classes = _sizes(head)
    inside = compose.add_prefix(head.to_model(), _HEAD)
    # The head's tensors take the step's names, without an Identity in between: engines name layers after tensors.
    names = {f"{_HEAD}features": "features", f"{_HEAD}length": "lengths", f"{_HEAD}logits": "logits"}
    for node in inside.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    graph = helper.make_graph(
        [*_state_nodes(), *inside.graph.node, *_probability_nodes()],
        "step",
        [
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["B", width]),
            helper.make_tensor_value_info("window", TensorProto.FLOAT, ["B", window, width]),
            *(helper.make_tensor_value_info(name, TensorProto.INT32, ["B", 1]) for name in ("length", *STEP_CONTROLS)),
        ],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", classes]),
            helper.make_tensor_value_info("next_window", TensorProto.FLOAT, ["B", window, width]),
            helper.make_tensor_value_info("next_length", TensorProto.INT32, ["B", 1]),
        ],
        [*inside.graph.initializer, *_constants(window, temperature)],
    )
    return Graph(
        helper.make_model(graph, opset_imports=head.opset_import, ir_version=head.ir_version, producer_name="fer-edge")
    )


def _state_nodes() -> list[NodeProto]:
    """`window`, `length`, `start`, `ready` and `feature` to `features`, `lengths` and the next state."""
    return [
        _node("Unsqueeze", ["feature", "step/axis_1"], "step/newest"),
        _node("Concat", ["window", "step/newest"], "step/longer", axis=1),
        _node("Slice", ["step/longer", "step/second", "step/end", "step/axis_1"], "step/shifted"),
        _node("Expand", ["step/newest", "step/repeats"], "step/repeated"),
        # No state yet: a sequence starts, or the server gives zeros.
        _node("Cast", ["start"], "step/started", to=TensorProto.BOOL),
        _node("Less", ["length", "step/one"], "step/empty"),
        _node("Or", ["step/started", "step/empty"], "step/fresh"),
        _node("Unsqueeze", ["step/fresh", "step/axis_2"], "step/fresh_window"),
        # Where, not a product with 0: an unwritten state may hold NaN.
        _node("Where", ["step/fresh_window", "step/repeated", "step/shifted"], "features"),
        _node("Where", ["step/fresh", "step/zero", "length"], "step/before"),
        _node("Add", ["step/before", "step/one"], "step/after"),
        _node("Min", ["step/after", "step/full"], "step/count"),
        _node("Squeeze", ["step/count", "step/axis_1"], "step/counts"),
        _node("Cast", ["step/counts"], "lengths", to=TensorProto.INT64),
        _node("Cast", ["ready"], "step/due", to=TensorProto.BOOL),
        _node("Unsqueeze", ["step/due", "step/axis_2"], "step/due_window"),
        _node("Where", ["step/due_window", "features", "window"], "next_window"),
        _node("Where", ["step/due", "step/count", "length"], "next_length"),
    ]


def _probability_nodes() -> list[NodeProto]:
    return [
        _node("Div", ["logits", "step/temperature"], "step/scores"),
        _node("Softmax", ["step/scores"], "probabilities", axis=1),
    ]


def _constants(window: int, temperature: float) -> list[TensorProto]:
    values: dict[str, NDArray[np.generic]] = {
        "step/axis_1": np.array([1], np.int64),
        "step/axis_2": np.array([2], np.int64),
        "step/second": np.array([1], np.int64),
        "step/end": np.array([window + 1], np.int64),
        "step/repeats": np.array([1, window, 1], np.int64),
        "step/zero": np.array(0, np.int32),
        "step/one": np.array(1, np.int32),
        "step/full": np.array(window, np.int32),
        "step/temperature": np.array(temperature, np.float32),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], f"{kind}:{output}", **attributes)


def _sizes(head: Graph) -> tuple[int, int]:
    """Width of a feature vector and number of classes."""
    if head.opset < _OLDEST_OPSET:
        raise InputError(f"the head: got opset {head.opset}, expected {_OLDEST_OPSET} or newer; export the run again")
    inputs, outputs = head.inputs, head.outputs
    if set(inputs) != {"features", "length"} or "logits" not in outputs:
        raise InputError(
            f"the head: got {', '.join(inputs)} -> {', '.join(outputs)}, expected 'features' and 'length' -> 'logits'"
        )
    return _last_size(inputs["features"], rank=3), _last_size(outputs["logits"], rank=2)


def _last_size(tensor: TensorInfo, *, rank: int) -> int:
    size = tensor.shape[-1] if len(tensor.shape) == rank else None
    if not isinstance(size, int):
        raise InputError(
            f"the head's {tensor.name!r}: got the shape {tensor.shape}, expected {rank} axes, the last of a fixed size"
        )
    return size
