"""Graphs that fer-edge did not make: every target and command ends with one error, none with a traceback."""

from __future__ import annotations

import importlib.util
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tiny import tiny_bundle, tiny_encoder, tiny_head

from fer_edge.cli import main
from fer_edge.core.errors import FerEdgeError, SessionError
from fer_edge.export import plan_process
from fer_edge.export.plan_process import build_plan_apart
from fer_edge.export.tensorrt_builder import BuildOptions
from fer_edge.runtime.tensorrt_library import load_tensorrt

TARGETS = ["cpu-x86", "openvino", "rtx-desktop", "triton-cpu", "jetson-orin-agx"]
NEEDS = {"openvino": "openvino", "rtx-desktop": "tensorrt_rtx"}


def _renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    for names in [*(node.input for node in model.graph.node), *(node.output for node in model.graph.node)]:
        names[:] = [new if name == old else name for name in names]
    for value in [*model.graph.input, *model.graph.output]:
        value.name = new if value.name == old else value.name
    return model


def _constant_logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """A head that reads neither input: engines drop what nobody reads."""
    logits = onnx.numpy_helper.from_array(np.zeros((1, 7), np.float32), "fixed")
    del model.graph.node[:]
    model.graph.initializer.append(logits)
    model.graph.node.append(onnx.helper.make_node("Identity", ["fixed"], ["logits"]))
    return model


FOREIGN: dict[str, dict[str, Any]] = {
    "head input": {"head": lambda: _renamed(tiny_head(), "features", "inputs")},
    "head output": {"head": lambda: _renamed(tiny_head(), "logits", "scores")},
    "encoder input": {"encoder": lambda: _renamed(tiny_encoder(), "frames", "images")},
    "head of constants": {"head": lambda: _constant_logits(tiny_head())},
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("change", FOREIGN)
def test_a_foreign_graph_is_one_error(tmp_path: Path, target: str, change: str) -> None:
    if not importlib.util.find_spec(NEEDS.get(target, "onnxruntime")):
        pytest.skip(f"needs {NEEDS[target]}")
    try:
        tiny_bundle(tmp_path / "bundle", **{part: make() for part, make in FOREIGN[change].items()})
    except FerEdgeError:  # refused even earlier
        return
    out = tmp_path / "out"
    for command in (["check"], ["export", "--out", out]):
        words = [command[0], tmp_path / "bundle", "--target", target, *command[1:]]
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 1
    assert not out.exists()


def _crash(*_: object) -> None:
    os.abort()


def _fail(sender: Connection, *_: object) -> None:
    sender.send(("building", 1, 2))
    sender.send(SessionError("the builder said no"))


@pytest.mark.tensorrt
@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="needs TensorRT-RTX")
def test_a_builder_that_ends_its_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library, steps = load_tensorrt("tensorrt_rtx"), list[tuple[str, int, int]]()
    for target, message in ((_crash, r"the end of its process \(status -6\)"), (_fail, "the builder said no")):
        monkeypatch.setattr(plan_process, "_build", target)
        with pytest.raises(SessionError, match=message):
            build_plan_apart(
                library, b"", BuildOptions(shapes={}), progress=lambda *step: steps.append(step), name="head"
            )
    assert steps == [("building", 1, 2)]
