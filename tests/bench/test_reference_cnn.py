"""The reference CNN is what design says it is, and is written without the onnx package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fer_edge.bench.reference_cnn import REFERENCE_CHANNELS, reference_graph, reference_input
from fer_edge.core.files import sha256_bytes


def test_the_bytes_are_the_same_everywhere() -> None:
    assert reference_graph() == reference_graph()
    assert sha256_bytes(reference_graph()) == "e1e66d24a812bc4dd8f442e54d8c10a6efdf75b592189633749191fa1eeebaca"


def test_it_is_written_without_onnx() -> None:
    program = (
        "import sys; sys.modules['onnx'] = None; sys.modules['torch'] = None\n"
        "from fer_edge.bench.reference_cnn import reference_graph\n"
        "print(len(reference_graph()))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert 3_800_000 < int(out) < 3_900_000


def test_onnx_accepts_it_and_it_is_the_graph_onnx_would_write() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(reference_graph())
    onnx.checker.check_model(model, full_check=True)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes, tensor = [], "faces"
    for layer in range(1, 5):
        statistics = [f"norm{layer}.{name}" for name in ("scale", "bias", "mean", "variance")]
        nodes += [
            onnx.helper.make_node(
                "Conv",
                [tensor, f"conv{layer}.weight"],
                [f"conv{layer}"],
                f"conv{layer}",
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                strides=[1, 1],
            ),
            onnx.helper.make_node(
                "BatchNormalization", [f"conv{layer}", *statistics], [f"norm{layer}"], f"norm{layer}"
            ),
            onnx.helper.make_node("Relu", [f"norm{layer}"], [f"relu{layer}"], f"relu{layer}"),
        ]
        tensor = f"relu{layer}"
        if layer < 4:
            nodes.append(
                onnx.helper.make_node(
                    "MaxPool", [tensor], [f"pool{layer}"], f"pool{layer}", kernel_shape=[2, 2], strides=[2, 2]
                )
            )
            tensor = f"pool{layer}"
    nodes += [
        onnx.helper.make_node("GlobalAveragePool", [tensor], ["pooled"], "pooled"),
        onnx.helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        onnx.helper.make_node("Gemm", ["flat", "linear.weight", "linear.bias"], ["logits"], "logits", transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "reference-cnn",
        [onnx.helper.make_tensor_value_info("faces", onnx.TensorProto.FLOAT, ["N", 1, 48, 48])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 7])],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    expected = onnx.helper.make_model(
        graph, producer_name="fer-edge", ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    assert model == expected
    assert reference_graph() == expected.SerializeToString(deterministic=True)
    kernels = [weights[f"conv{layer}.weight"].shape for layer in range(1, 5)]
    assert kernels == [(64, 1, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3)]
    assert tuple(shape[0] for shape in kernels) == REFERENCE_CHANNELS


@pytest.mark.parametrize("batch", [1, 3])
def test_the_engine_runs_it(batch: int) -> None:
    engine = pytest.importorskip("onnxruntime")
    session = engine.InferenceSession(reference_graph(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"faces": reference_input(batch=batch)})
    assert logits.shape == (batch, 7)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.1, "activations must neither vanish nor be denormal, or the time means nothing"


def test_it_computes_what_torch_computes() -> None:
    torch = pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    engine = pytest.importorskip("onnxruntime")
    graph = onnx.load_from_string(reference_graph()).graph
    weights = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    functional = torch.nn.functional
    faces = torch.from_numpy(reference_input())
    values = faces
    for layer in range(1, 5):
        values = functional.conv2d(values, weights[f"conv{layer}.weight"], padding=1)
        scale, bias, mean, variance = (weights[f"norm{layer}.{n}"] for n in ("scale", "bias", "mean", "variance"))
        values = functional.relu(functional.batch_norm(values, mean, variance, scale, bias))
        values = functional.max_pool2d(values, 2) if layer < 4 else values
    expected = functional.linear(values.mean(dim=(2, 3)), weights["linear.weight"], weights["linear.bias"])
    session = engine.InferenceSession(reference_graph(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"faces": faces.numpy()})
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
