"""The pre-flight rules against the parser of TensorRT-RTX: what it refuses, a check refuses first."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.preflight.rules import check_graph

Arrays = dict[str, np.ndarray]
# The parser takes layout 1 and computes as if it were 0.
STRICTER = {f"{op} layout" for op in ("LSTM", "GRU", "RNN")}
GATES = {"LSTM": (4, ["Sigmoid", "Tanh", "Tanh"]), "GRU": (3, ["Sigmoid", "Tanh"]), "RNN": (1, ["Tanh"])}
ACTIVATIONS = (
    "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign",
    "Softplus",
)  # fmt: skip


def _model(nodes: list[NodeProto], shape: tuple[int, ...], constants: Arrays, kind: int = TensorProto.FLOAT) -> bytes:
    constants = {name: np.asarray(value) for name, value in constants.items()}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", kind, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


def _recurrent(op: str, **attributes: Any) -> bytes:
    gates, ways = GATES[op][0], 2 if attributes.get("direction") == "bidirectional" else 1
    random = np.random.default_rng(0)
    weights = {
        "W": random.standard_normal((ways, gates * 4, 3), np.float32),
        "R": random.standard_normal((ways, gates * 4, 4), np.float32),
        "B": np.zeros((ways, 2 * gates * 4), np.float32),
        "H": np.zeros((ways, 2, 4), np.float32),
    }
    states = ["", "H", "H"] if op == "LSTM" else ["", "H"]
    node = helper.make_node(op, ["X", "W", "R", "B", *states], ["Y"], name="node", hidden_size=4, **attributes)
    return _model([node], (5, 2, 3), weights)


def _one(op: str, shape: tuple[int, ...] = (1, 4, 8, 8), constants: Arrays | None = None, **attributes: Any) -> bytes:
    kind = TensorProto.INT64 if op == "ArgMax" else TensorProto.FLOAT
    named = constants or {}
    node = helper.make_node(op, ["X", *named], ["Y"], name="node", **attributes)
    return _model([node], shape, named, kind)


def _recurrent_cases() -> Iterator[tuple[str, bytes]]:
    for op, (_, usual) in GATES.items():
        count, both = len(usual), {"direction": "bidirectional"}
        for direction in ("forward", "reverse", "bidirectional"):
            yield f"{op} {direction}", _recurrent(op, direction=direction)
        for name in ACTIVATIONS:
            yield f"{op} {name}", _recurrent(op, activations=[name] * count)
        two: dict[str, Any] = {**both, "activations": ["HardSigmoid"] * 2 * count}
        same, other = [0.2] * 2 * count, [0.2] * count + [0.3] * count
        for key in ("activation_alpha", "activation_beta"):
            yield f"{op} equal {key}", _recurrent(op, **two, **{key: same})
            yield f"{op} other {key}", _recurrent(op, **two, **{key: other})
        yield f"{op} other activations", _recurrent(op, **both, activations=[*usual, *["Sigmoid"] * count])
        yield f"{op} layout", _recurrent(op, layout=1)
        yield f"{op} clip", _recurrent(op, clip=3.0)
    yield "LSTM input_forget", _recurrent("LSTM", input_forget=1)
    yield "GRU linear_before_reset", _recurrent("GRU", linear_before_reset=1)


def _other_cases() -> Iterator[tuple[str, bytes]]:
    weights = {"W": np.ones((4, 4, 3, 3), np.float32)}
    for pad in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        yield f"Conv {pad}", _one("Conv", constants=weights, auto_pad=pad)
    yield "Conv dilations", _one("Conv", constants=weights, dilations=[2, 2])
    yield (
        "ConvTranspose output_padding",
        _one("ConvTranspose", constants=weights, strides=[2, 2], output_padding=[1, 1]),
    )
    yield "ConvTranspose dilations", _one("ConvTranspose", constants=weights, dilations=[2, 2])
    for key, value in (("ceil_mode", 1), ("storage_order", 1), ("dilations", [2, 2]), ("dilations", [1, 1])):
        yield f"MaxPool {key} {value}", _one("MaxPool", kernel_shape=[2, 2], **{key: value})
    yield "AveragePool", _one("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    for p in (1, 2, 3):
        yield f"LpPool {p}", _one("LpPool", kernel_shape=[2, 2], p=p)
    resize = {"roi": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    for mode in ("nearest", "linear", "cubic"):
        for place in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"):
            attributes = {"mode": mode, "coordinate_transformation_mode": place}
            yield f"Resize {mode} {place}", _one("Resize", constants=resize, **attributes)
    for mode in ("constant", "reflect", "edge"):
        yield f"Pad {mode}", _one("Pad", constants={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, mode=mode)
    for mode in ("DCR", "CRD"):
        yield f"DepthToSpace {mode}", _one("DepthToSpace", blocksize=2, mode=mode)
    for fmod in (0, 1):
        yield f"Mod {fmod}", _one("Mod", constants={"by": np.array([2.0], np.float32)}, fmod=fmod)
    for index, op in (([[1], [2]], "ScatterND"), ([[0, 1, 2, 0]], "ScatterElements")):
        updates = np.ones((2, 4) if op == "ScatterND" else (1, 4), np.float32)
        for reduction in ("none", "add", "mul"):
            named = {"indices": np.array(index), "updates": updates}
            yield f"{op} {reduction}", _one(op, (3, 4), named, reduction=reduction)
    for training in (False, True):
        named = {"ratio": np.array(0.5, np.float32), "training": np.array(training)}
        yield f"Dropout {training}", _one("Dropout", constants=named)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            grid = {"grid": np.zeros((1, 4, 4, 2), np.float32)}
            yield f"GridSample {mode} {padding}", _one("GridSample", constants=grid, mode=mode, padding_mode=padding)
    for equation in ("ij,jk->ik", "...j,jk->...k"):
        yield f"Einsum {equation}", _one("Einsum", (2, 3), {"w": np.ones((3, 4), np.float32)}, equation=equation)
    for exclusive, reverse in ((0, 0), (1, 1)):
        axis = {"axis": np.array(1)}
        yield f"CumSum {exclusive}{reverse}", _one("CumSum", constants=axis, exclusive=exclusive, reverse=reverse)
    yield "ArgMax last", _one("ArgMax", axis=1, select_last_index=1)
    for op in ("Hardmax", "Softmax", "LogSoftmax", "Det", "Celu", "Softsign", "NonZero", "Shrink"):
        yield op, _one(op)


CASES = {**dict(_recurrent_cases()), **dict(_other_cases())}
PARSE = """
import json, sys
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
for name, model in json.load(sys.stdin):
    print(json.dumps([name, None]), flush=True)
    network = builder.create_network(0)
    parsed = trt.OnnxParser(network, logger).parse(bytes.fromhex(model))
    print(json.dumps([name, bool(parsed)]), flush=True)
"""


def _refused(model: bytes) -> bool:
    try:
        graph = Graph.read(model, name="the graph")
    except InputError:  # not ONNX at all
        return True
    return any(finding.severity == "error" for finding in check_graph(graph, target="rtx"))


@pytest.mark.tensorrt
@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="needs TensorRT-RTX")
def test_what_the_parser_refuses_the_check_refuses() -> None:
    parsed: dict[str, bool | None] = {}
    while waiting := [name for name in CASES if name not in parsed]:  # the parser may end its process
        sent = json.dumps([(name, CASES[name].hex()) for name in waiting])
        command = [sys.executable, "-c", PARSE]
        done = subprocess.run(command, input=sent, capture_output=True, text=True, timeout=300, check=False)
        assert done.stdout, done.stderr
        parsed |= dict(map(json.loads, done.stdout.splitlines()))
    refused = {name: _refused(model) for name, model in CASES.items()}
    assert [name for name in CASES if not parsed[name] and not refused[name]] == [], "looser than the parser"
    assert {name for name in CASES if parsed[name] and refused[name]} == STRICTER
    assert sum(not each for each in parsed.values()) >= 20


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("LSTM Affine", True),
        ("GRU other activation_beta", True),
        ("GRU equal activation_beta", False),
        ("MaxPool dilations [2, 2]", True),
        ("Dropout True", True),
        ("Dropout False", False),
        ("Mod 0", True),
    ],
)
def test_without_the_parser(name: str, refused: bool) -> None:
    assert _refused(CASES[name]) == refused
