"""Real engines of the shipped bundles by TensorRT-RTX, for every GPU that it lists; no GPU is needed for that."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import SessionError
from fer_edge.core.files import sha256_bytes, sha256_file
from fer_edge.core.machine import machine_report
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.export.graph_passes import InputShapes
from fer_edge.export.job import target_job
from fer_edge.export.tensorrt_backend import TensorRtBackend
from fer_edge.export.tensorrt_builder import BuildOptions, build_plan
from fer_edge.runtime.engine_files import read_engine
from fer_edge.runtime.tensorrt_library import load_tensorrt

pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="needs TensorRT-RTX"),
]

ALL = FLAVOURS["rtx"].compute_capabilities
NO_TURING = tuple(each for each in ALL if each not in FLAVOURS["rtx"].fp16_only)
AS_THE_RECIPE = ()
IN_FP32 = ("precision=fp32", f"compute_capabilities={list(NO_TURING)}")


FORMS = (
    ("int8-trt", AS_THE_RECIPE, "int8-fp16", ALL),
    ("int8-trt", IN_FP32, "int8", NO_TURING),
    ("fp32", AS_THE_RECIPE, "fp16", ALL),
    ("fp32", IN_FP32, "fp32", NO_TURING),
)


@pytest.mark.parametrize(("name", "form"), [*zip(zoo_names(), itertools.cycle(FORMS), strict=False)])
def test_the_zoo_builds_for_every_gpu(
    tmp_path: Path, name: str, form: tuple[str, tuple[str, ...], str, tuple[int, ...]]
) -> None:
    """Each bundle in one form, each form of one bundle."""
    variant, settings, precision, capabilities = form
    bundle = Bundle.open(name)
    job = target_job(bundle, target="rtx-desktop", variant=variant, settings=settings)
    backend = TensorRtBackend(job)
    backend.check()
    steps: list[tuple[str, int, int]] = []
    backend.write(tmp_path, lambda *step: steps.append(step))
    assert {step[0].split(":")[0] for step in steps} == {"building encoder", "building head", "building crowd"}
    assert all(done <= total for _, done, total in steps)
    assert {file.name for file in backend.planned()} <= {path.name for path in tmp_path.iterdir()}
    for part, file in bundle.variant(variant).parts.items():
        engine = read_engine(next(tmp_path.glob(f"{file.sha256}-*.engine")))
        said = engine.sidecar
        assert (said.part, said.precision, said.compute_capabilities) == (part, precision, capabilities)
        assert said.engine_sha256 == sha256_file(engine.path)
        assert said.built_from_sha256 == sha256_bytes(job.graphs[part])  # type: ignore[index]
        assert said.engine_bytes == engine.path.stat().st_size > 100_000
        assert [tensor.name for tensor in said.inputs] == list(job.shapes[part])  # type: ignore[index]
        assert not any("UINT8 zero_point" in warning for warning in said.warnings), "the activations must be signed"
    if not machine_report().gpus:
        assert backend.not_run == "no CUDA GPU here"


def test_the_table_says_of_this_library_what_it_has() -> None:
    library = load_tensorrt("tensorrt_rtx")
    trt, row = library.module, library.flavour
    listed = {int(name[2:]) for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert listed == set(row.compute_capabilities)
    assert hasattr(trt.BuilderFlag, "FP16") is row.precision_flags
    assert hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is row.strong_typing
    assert hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") is row.explicit_batch
    assert hasattr(trt, "IProgressMonitor") is row.progress_monitor
    assert hasattr(trt.ParserError, "node_name") is row.parser_names
    assert hasattr(trt.Runtime, "get_engine_validity") is row.just_in_time
    assert hasattr(trt.IRuntimeConfig, "create_runtime_cache") is row.just_in_time


def test_turing_refuses_fp32_in_the_librarys_own_words() -> None:
    """What `fp16_only` says beforehand."""
    library = load_tensorrt("tensorrt_rtx")
    unchecked = dataclasses.replace(library, flavour=dataclasses.replace(library.flavour, fp16_only=()))
    model = _model(helper.make_node("MatMul", ["x", "x"], ["y"], name="product"))
    with pytest.raises(SessionError, match=r"cannot build product: .*FP32 GEMM is not supported"):
        build_plan(unchecked, model, BuildOptions(shapes=_SHAPES, compute_capabilities=(75,)), name="product")
    assert build_plan(unchecked, model, BuildOptions(shapes=_SHAPES, compute_capabilities=(86,))).plan


def test_the_parsers_refusal_names_the_node() -> None:
    model = _model(helper.make_node("NonSense", ["x"], ["y"], name="the-odd-one"))
    with pytest.raises(SessionError, match=r"node 'the-odd-one' \(NonSense\): .*Plugin not found"):
        build_plan(load_tensorrt("tensorrt_rtx"), model, BuildOptions(shapes=_SHAPES, compute_capabilities=(86,)))


_SHAPES = {"x": InputShapes(min=(4, 4), opt=(4, 4), max=(4, 4))}


def _model(node: object) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
