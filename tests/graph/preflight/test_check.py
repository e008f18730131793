"""Every rule on a graph that was broken for it, and on the graph that was not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.preflight.finding import Finding, Profile
from fer_edge.graph.preflight.rules import CHECK_TARGETS, DLA_RULES, RULES, check_graph

PROFILE: Profile = {"frames": ((1, 8, 8), (1, 8, 8), (4, 8, 8))}
FIXED: Profile = {"frames": ((2, 8, 8),) * 3}
TENSORRT = tuple(target for target in CHECK_TARGETS if target != "dla")
OLDEST_NEWEST_RTX = ("8.5", "11", "rtx")


def sound(batch: int | str = "N", opset: int = 17) -> ModelProto:
    """uint8 `frames` (N, 8, 8) -> quantized convolution -> BiLSTM over 36 steps -> `y` float32 (36, 2, N, 4)."""
    random = np.random.default_rng(0)
    weights = {
        "axis": np.array([1], np.int64),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "kernel": random.integers(-127, 128, (3, 1, 3, 3)).astype(np.int8),
        "kernel_scale": np.full(3, 0.01, np.float32),
        "kernel_zero": np.zeros(3, np.int8),
        "steps": np.array([0, 3, 36], np.int64),
        "W": random.normal(size=(2, 16, 3)).astype(np.float32),
        "R": random.normal(size=(2, 16, 4)).astype(np.float32),
        "B": random.normal(size=(2, 32)).astype(np.float32),
        "state": np.zeros((2, 1, 4), np.float32),
        "shape": np.array([2, 1, 4], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "axis"], ["plane"], "plane"),
        helper.make_node("QuantizeLinear", ["plane", "scale", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dequantize"),
        helper.make_node(
            "DequantizeLinear", ["kernel", "kernel_scale", "kernel_zero"], ["w"], "dequantize_weights", axis=0
        ),
        helper.make_node("Conv", ["d", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["active"], "relu"),
        helper.make_node("Reshape", ["active", "steps"], ["tokens"], "tokens"),
        helper.make_node("Transpose", ["tokens"], ["x"], "first_time", perm=[2, 0, 1]),
        helper.make_node(
            "LSTM", ["x", "W", "R", "B", "", "state", "state"], ["y"], "lstm", direction="bidirectional", hidden_size=4
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "sound",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(model: ModelProto, name: str) -> NodeProto:
    return next(each for each in model.graph.node if each.name == name)


def constant(model: ModelProto, name: str, value: object) -> None:
    """Replace an initialiser, or add one."""
    array = numpy_helper.from_array(np.asarray(value), name)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(array)
            return
    model.graph.initializer.append(array)


def insert(model: ModelProto, before: str, made: NodeProto) -> None:
    at = next(place for place, each in enumerate(model.graph.node) if each.name == before)
    model.graph.node.insert(at, made)


def set_attribute(name: str, value: object, node_name: str = "lstm") -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        target = node(model, node_name)
        kept = [entry for entry in target.attribute if entry.name != name]
        del target.attribute[:]
        target.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def unsigned(model: ModelProto) -> None:
    constant(model, "zero", np.uint8(0))


def unsigned_by_default(model: ModelProto) -> None:
    del node(model, "quantize").input[2:]
    del node(model, "dequantize").input[2:]


def offset(model: ModelProto) -> None:
    constant(model, "zero", np.int8(3))


def computed_scale(model: ModelProto) -> None:
    insert(model, "quantize", helper.make_node("ReduceMax", ["floats"], ["top"], "top", keepdims=0))
    node(model, "quantize").input[1] = "top"


def negative_scale(model: ModelProto) -> None:
    constant(model, "scale", np.float32(-0.05))


def integer_reader(model: ModelProto) -> None:
    insert(model, "relu", helper.make_node("Cast", ["q"], ["qf"], "peek", to=TensorProto.FLOAT))


def scale_by_channel(model: ModelProto) -> None:
    constant(model, "scale", np.full(1, 0.05, np.float32))
    constant(model, "scales", np.full(8, 0.05, np.float32))
    constant(model, "zeros", np.zeros(8, np.int8))
    for name in ("quantize", "dequantize"):
        node(model, name).input[1:] = ["scales", "zeros"]
        set_attribute("axis", 2, name)(model)


def wrong_axis(model: ModelProto) -> None:
    constant(model, "kernel_scale", np.full(1, 0.01, np.float32))
    constant(model, "kernel_scale3", np.full(3, 0.01, np.float32))
    node(model, "dequantize_weights").input[1] = "kernel_scale3"
    set_attribute("axis", 2, "dequantize_weights")(model)


def int32_bias(model: ModelProto) -> None:
    constant(model, "bias", np.array([1, 2, 3], np.int32))
    insert(model, "conv", helper.make_node("DequantizeLinear", ["bias", "scale"], ["b"], "dequantize_bias"))
    node(model, "conv").input.append("b")


def unknown_operator(model: ModelProto) -> None:
    node(model, "relu").op_type = "Det"


def foreign_domain(model: ModelProto) -> None:
    node(model, "relu").domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def integer_operator(model: ModelProto) -> None:
    insert(model, "relu", helper.make_node("DynamicQuantizeLinear", ["c"], ["c8", "cs", "cz"], "dynamic"))


def computed_axes(model: ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", ["axis"], ["axes"], "axes"))
    node(model, "plane").input[1] = "axes"


def uint8_reshaped_first(model: ModelProto) -> None:
    node(model, "plane").input[0] = "frames"
    node(model, "cast").input[0] = "plane"
    node(model, "cast").output[0] = "cast_plane"
    node(model, "quantize").input[0] = "cast_plane"
    first, second = model.graph.node[0], model.graph.node[1]
    swapped = [NodeProto.FromString(each.SerializeToString()) for each in (second, first)]
    first.CopyFrom(swapped[0])
    second.CopyFrom(swapped[1])


def uint8_inside(model: ModelProto) -> None:
    insert(model, "relu", helper.make_node("Cast", ["c"], ["c8"], "narrow", to=TensorProto.UINT8))
    insert(model, "relu", helper.make_node("Cast", ["c8"], ["c_again"], "widen", to=TensorProto.FLOAT))
    node(model, "relu").input[0] = "c_again"


def int64_output(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], "best", axis=3))
    model.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, None))


def float64(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["y"], ["wide"], "wide", to=TensorProto.DOUBLE))
    model.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.DOUBLE, None))


def no_states(model: ModelProto) -> None:
    del node(model, "lstm").input[5:]


def double_lstm(model: ModelProto) -> None:
    for name, dtype in (("W", np.float64), ("R", np.float64), ("B", np.float64), ("state", np.float64)):
        tensor = next(each for each in model.graph.initializer if each.name == name)
        constant(model, name, numpy_helper.to_array(tensor).astype(dtype))
    insert(model, "lstm", helper.make_node("Cast", ["x"], ["x64"], "x64", to=TensorProto.DOUBLE))
    node(model, "lstm").input[0] = "x64"


# rule, what breaks it, the node that is named, and a word of what is said
PLANTED = [
    ("quantizer-signed", unsigned, "quantize", "would saturate"),
    ("quantizer-signed", unsigned_by_default, "quantize", "uint8"),
    ("quantizer-signed", int32_bias, "dequantize_bias", "int32 values"),
    ("quantizer-zero-point", offset, "quantize", "zero point 3"),
    ("quantizer-scale", computed_scale, "quantize", "computed scale, 'top'"),
    ("quantizer-scale", negative_scale, "quantize", "-0.05"),
    ("quantizer-pair", integer_reader, "quantize", "read by Cast"),
    ("activation-per-tensor", scale_by_channel, "quantize", "8 scales for an activation"),
    ("weight-axis", wrong_axis, "dequantize_weights", "along axis 2 of the weights of Conv 'conv'"),
    ("operator", unknown_operator, "relu", "Det, which the parser"),
    ("operator", foreign_domain, "relu", "com.microsoft"),
    ("operator", integer_operator, "dynamic", "DynamicQuantizeLinear"),
    ("operator-form", computed_axes, "plane", "axes are computed"),
    ("uint8", uint8_reshaped_first, "plane", "read by Unsqueeze"),
    ("uint8", uint8_inside, "narrow", "'c8' is uint8 inside"),
    ("float64", float64, "wide", "float64"),
    ("recurrent-form", set_attribute("layout", 1), "lstm", "layout 1"),
    ("recurrent-form", set_attribute("input_forget", 1), "lstm", "coupled gates"),
    ("recurrent-form", set_attribute("clip", 3.0), "lstm", "clip of 3"),
    ("recurrent-states", no_states, "lstm", "no explicit initial state"),
    ("recurrent-type", double_lstm, "lstm", "double"),
    (
        "recurrent-activations",
        set_attribute("activations", ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Relu", "Tanh"]),
        "lstm",
        "sigmoid, tanh, tanh one way and sigmoid, relu, tanh the other",
    ),
    ("recurrent-activations", set_attribute("activations", ["Sigmoid", "Gelu", "Tanh"] * 2), "lstm", "'gelu'"),
]
# these are planted by what is asked for, not by a fault of the graph
ASKED = {"opset", "profile", "int64", "fp32-product", *(rule.name for rule in DLA_RULES)}


def of_rule(findings: tuple[Finding, ...], rule: str) -> list[Finding]:
    return [finding for finding in findings if finding.rule == rule]


@pytest.mark.parametrize("target", TENSORRT)
def test_a_sound_graph_is_accepted(target: str) -> None:
    assert check_graph(Graph(sound()), target=target, profile=PROFILE) == ()


@pytest.mark.parametrize("target", OLDEST_NEWEST_RTX)
@pytest.mark.parametrize(("rule", "plant", "where", "words"), PLANTED)
def test_a_planted_fault_is_named(
    rule: str, plant: Callable[[ModelProto], None], where: str, words: str, target: str
) -> None:
    model = sound()
    plant(model)
    found = of_rule(check_graph(Graph(model), target=target, part="encoder", profile=PROFILE), rule)
    assert where in [finding.node for finding in found]
    finding = next(each for each in found if each.node == where)
    assert words in finding.found
    assert finding.cure
    assert (finding.target, finding.part) == (target, "encoder")


def test_every_rule_is_planted() -> None:
    assert {rule for rule, *_ in PLANTED} | ASKED == {rule.name for rule in (*RULES, *DLA_RULES)}
    assert not {rule for rule, *_ in PLANTED} & ASKED


@pytest.mark.parametrize(("target", "newest"), [("8.5", 17), ("8.6", 17), ("10.3", 20), ("11", 25)])
def test_an_opset_beyond_the_parsers_is_refused(target: str, newest: int) -> None:
    for version, count in ((8, 1), (9, 0), (newest, 0), (newest + 1, 1)):
        found = of_rule(check_graph(Graph(sound(opset=version)), target=target, profile=PROFILE), "opset")
        assert len(found) == count
        assert all(f"reads 9 to {newest}" in finding.found for finding in found)


def test_a_recipe_may_want_an_older_opset() -> None:
    (finding,) = check_graph(Graph(sound()), target="10.3", profile=PROFILE, max_opset=16)
    assert (finding.rule, finding.found) == ("opset", "opset 17; the recipe wants 9 to 16")


@pytest.mark.parametrize(
    ("batch", "profile", "words"),
    [
        ("N", None, "an open dimension (N, 8, 8) and no optimisation profile"),
        ("N", {}, "no optimisation profile"),
        ("N", {"frames": ((1, 8), (1, 8), (4, 8))}, "a profile of (1, 8)"),
        ("N", {"frames": ((4, 8, 8), (1, 8, 8), (4, 8, 8))}, "for the shape (N, 8, 8)"),
        ("N", {"frames": ((1, 8, 8), (1, 8, 8), (4, 9, 8))}, "(4, 9, 8)"),
        (2, {"frames": ((1, 8, 8), (1, 8, 8), (4, 8, 8))}, "for the shape (2, 8, 8)"),
    ],
)
def test_an_open_dimension_needs_a_profile_that_fits(batch: int | str, profile: Profile | None, words: str) -> None:
    (finding,) = of_rule(check_graph(Graph(sound(batch)), target="10.3", profile=profile), "profile")
    assert finding.node == "frames"
    assert words in finding.found


def test_a_fixed_graph_needs_no_profile() -> None:
    assert check_graph(Graph(sound(2)), target="10.3") == ()


@pytest.mark.parametrize(("target", "count"), [("8.5", 1), ("8.6", 1), ("10.3", 0), ("11", 0), ("rtx", 0)])
def test_int64_is_int32_before_tensorrt_9(target: str, count: int) -> None:
    model = sound()
    int64_output(model)
    found = of_rule(check_graph(Graph(model), target=target, profile=PROFILE), "int64")
    assert len(found) == count
    assert all(finding.severity == "warning" and finding.node == "best" for finding in found)


def test_turing_gets_no_fp32_product_from_rtx() -> None:
    found = of_rule(
        check_graph(Graph(sound()), target="rtx", profile=PROFILE, compute_capabilities=(75, 86)), "fp32-product"
    )
    assert [finding.node for finding in found] == ["lstm"]
    assert "SM75" in found[0].found
    assert check_graph(Graph(sound()), target="rtx", profile=PROFILE, compute_capabilities=(86,)) == ()


class TestDla:
    def test_recurrent_layers_are_refused_because_they_would_move_in_silence(self) -> None:
        (finding,) = of_rule(check_graph(Graph(sound(2)), target="dla", profile=FIXED), "dla-recurrent")
        assert (finding.node, finding.severity) == ("lstm", "error")

    @pytest.mark.parametrize(("flavour", "severity"), [("10.3", "error"), ("11.4.1", "warning")])
    def test_explicit_quantization_is_refused_before_typed_accelerators(self, flavour: str, severity: str) -> None:
        found = check_graph(Graph(sound(2)), target=flavour, profile=FIXED, on_dla=True)
        (finding,) = of_rule(found, "dla-quantizer")
        assert (finding.node, finding.severity) == ("quantize", severity)

    def test_shapes_must_be_fixed(self) -> None:
        (finding,) = of_rule(check_graph(Graph(sound()), target="dla", profile=PROFILE), "dla-fixed-shapes")
        assert finding.node == "frames"
        assert of_rule(check_graph(Graph(sound(2)), target="dla", profile=FIXED), "dla-fixed-shapes") == []

    def test_other_operators_are_a_row_each(self) -> None:
        found = of_rule(check_graph(Graph(sound(2)), target="dla", profile=FIXED), "dla-operator")
        assert {finding.found.split(":")[0] for finding in found} == {"Cast", "Unsqueeze", "Reshape", "Transpose"}
        assert {finding.severity for finding in found} == {"warning"}

    def test_a_recipe_that_asks_for_it_gets_the_same_rules(self) -> None:
        rules = {finding.rule for finding in check_graph(Graph(sound(2)), target="10.3", profile=FIXED, on_dla=True)}
        assert {"dla-recurrent", "dla-quantizer"} <= rules


def test_nodes_inside_loops_are_looked_at() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Det", ["step"], ["inner"], "inside"),
            helper.make_node("Identity", ["state_in"], ["state_out"], "carry"),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("state_in", "step")],
        [
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [2, 2]),
            helper.make_tensor_value_info("inner", TensorProto.FLOAT, []),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Scan", ["s", "x"], ["last", "all"], "scan", body=body, num_scan_inputs=1)],
        "loop",
        [
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2, 2]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 2, 2]),
        ],
        [helper.make_tensor_value_info("all", TensorProto.FLOAT, [5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert [(f.rule, f.node) for f in check_graph(Graph(model), target="10.3")] == [("operator", "inside")]


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(InputError, match=r"got '9\.0', expected one of 8\.5"):
        check_graph(Graph(sound()), target="9.0")


@pytest.mark.parametrize("target", TENSORRT)
@pytest.mark.parametrize("variant", ["fp32", "int8", "int8-trt"])
def test_the_shipped_bundle(variant: str, target: str) -> None:
    """The uint8 variant is for ONNX Runtime and OpenVINO, and only the signed one passes for TensorRT."""
    bundle = Bundle.open("base")
    encoder = Graph.read(bundle.graph_bytes(variant, "encoder"))
    profile = {"frames": ((1, 48, 48), (1, 48, 48), (4, 48, 48))}
    errors = {f.rule for f in check_graph(encoder, target=target, profile=profile) if f.severity == "error"}
    assert errors == ({"quantizer-signed"} if variant == "int8" else set())
