from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fer_edge.core.errors import InputError, SessionError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.tensorrt_flavours import installed_flavour
from fer_edge.export.engine_writer import gpu_slug, read_layers, write_engine
from fer_edge.runtime.cuda_device import DeviceInfo
from fer_edge.runtime.engine_files import (
    EngineLayer,
    EngineSidecar,
    EngineTensor,
    find_engine,
    read_engine,
    sidecar_path,
)
from fer_edge.runtime.tensorrt_library import MessageLog, TensorRtLibrary

PLAN = b"a plan"
GRAPH = "1" * 64
ORIN = DeviceInfo(name="Orin", compute_capability=87, integrated=True, memory_bytes=8 << 30, package="pycuda 2025.1")
SIDECAR = EngineSidecar(
    engine_sha256=sha256_bytes(PLAN),
    engine_bytes=len(PLAN),
    graph_sha256=GRAPH,
    built_from_sha256="2" * 64,
    part="encoder",
    package="tensorrt",
    version="10.3.0",
    gpu="Orin",
    compute_capabilities=(87,),
    hardware_level="",
    version_compatible=False,
    precision="int8-fp16",
    inputs=(EngineTensor(name="frames", dtype="uint8", min=(1, 48, 48), opt=(1, 48, 48), max=(4, 48, 48)),),
    outputs=("features", "attention"),
    workspace_bytes=512 << 20,
    timing_cache_sha256=None,
    layers=(EngineLayer(name="conv", kind="CaskConvolution"),),
    check="ran on Orin",
    warnings=(),
    built={"seconds": 12.5},
)


def library(version: str = "10.3.0", package: str = "tensorrt") -> TensorRtLibrary:
    flavour = installed_flavour(package, version)  # type: ignore[arg-type]
    return TensorRtLibrary(
        package=package,  # type: ignore[arg-type]
        version=version,
        flavour=flavour,
        module=None,
        logger=None,
        log=MessageLog(),
    )


def gpu(name: str, capability: int) -> DeviceInfo:
    return dataclasses.replace(ORIN, name=name, compute_capability=capability)


class TestSidecar:
    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        written = write_engine(tmp_path, PLAN, SIDECAR)
        assert written.path.name == f"{GRAPH}-orin-tensorrt-10.3.0-int8-fp16.engine"
        assert written.path.read_bytes() == PLAN, "NVIDIA's own tools open the plan"
        assert read_engine(written.path) == written
        assert read_engine(written.path).read() == PLAN

    def test_a_session_states_the_range(self) -> None:
        assert str(SIDECAR.inputs[0].spec()) == "frames uint8 (1 to 4, 48, 48)"

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"schema": 2}, "schema: got 2"), ({"compute_capabilities": ()}, "compute_capabilities: got .*at least one")],
    )
    def test_what_cannot_be(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            dataclasses.replace(SIDECAR, **change)  # type: ignore[arg-type]

    def test_shapes_that_do_not_fit_each_other(self) -> None:
        with pytest.raises(InputError, match="min <= opt <= max"):
            dataclasses.replace(SIDECAR.inputs[0], opt=(9, 48, 48))

    @pytest.mark.parametrize(
        ("name", "slug"), [("NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"), (None, "sm80-86"), ("??", "gpu")]
    )
    def test_gpus_in_file_names(self, name: str | None, slug: str) -> None:
        assert gpu_slug(name, (80, 86)) == slug


class TestWhatSpeaksAgainstAnEngine:
    @pytest.mark.parametrize(
        ("changes", "here", "device", "fault"),
        [
            ({}, library(), ORIN, None),
            ({}, library("10.3.1"), ORIN, "built with tensorrt 10.3.0, and 10.3.1 is installed"),
            ({}, library("1.7.1", "tensorrt_rtx"), ORIN, "it is for tensorrt, not for tensorrt_rtx"),
            ({}, library(), gpu("Orin Nano", 87), r"built on Orin, and Orin Nano \(SM87\) is here"),
            ({}, library(), gpu("RTX 4090", 89), r"it is for SM87, and RTX 4090 \(SM89\) is here"),
            ({"version_compatible": True}, library("10.13.0"), ORIN, None),
            ({"version_compatible": True, "version": "10.13.0"}, library("10.3.0"), ORIN, "10.3.0 is installed"),
            ({"hardware_level": "SAME_COMPUTE_CAPABILITY"}, library(), gpu("Orin Nano", 87), None),
            ({"hardware_level": "SAME_COMPUTE_CAPABILITY"}, library(), gpu("RTX 4090", 89), "it is for SM87"),
            ({"hardware_level": "AMPERE_PLUS"}, library(), gpu("RTX 4090", 89), None),
            ({"hardware_level": "AMPERE_PLUS"}, library(), gpu("T4", 75), "it is for Ampere GPUs and later"),
            ({"gpu": None, "compute_capabilities": (86, 87)}, library(), gpu("Orin Nano", 87), None),
        ],
    )
    def test_gpu_and_version(
        self, changes: dict[str, object], here: TensorRtLibrary, device: DeviceInfo, fault: str | None
    ) -> None:
        sidecar = dataclasses.replace(SIDECAR, **changes)  # type: ignore[arg-type]
        found = sidecar.fault(here, device, graph_sha256=GRAPH)
        if fault is None:
            assert found is None
        else:
            assert re.search(fault, str(found))

    def test_another_graph(self) -> None:
        assert "built from the graph 1111111111111111, not from 3333333333333333" in str(
            SIDECAR.fault(library(), ORIN, graph_sha256="3" * 64)
        )


class TestFinding:
    def test_the_one_that_fits_among_others(self, tmp_path: Path) -> None:
        write_engine(tmp_path, PLAN, dataclasses.replace(SIDECAR, gpu="RTX 4090", compute_capabilities=(89,)))
        fitting = write_engine(tmp_path, PLAN, SIDECAR)
        write_engine(tmp_path, PLAN, dataclasses.replace(SIDECAR, graph_sha256="4" * 64))
        assert find_engine(tmp_path, graph_sha256=GRAPH, library=library(), device=ORIN) == fitting

    def test_none_fits_and_each_is_named(self, tmp_path: Path) -> None:
        write_engine(tmp_path, PLAN, dataclasses.replace(SIDECAR, gpu="RTX 4090", compute_capabilities=(89,)))
        bare = tmp_path / f"{GRAPH}-bare.engine"
        bare.write_bytes(PLAN)
        with pytest.raises(SessionError) as caught:
            find_engine(tmp_path, graph_sha256=GRAPH, library=library(), device=ORIN, build="fer-edge export")
        said = str(caught.value)
        assert "rtx-4090-tensorrt-10.3.0-int8-fp16.engine is stale or foreign: it is for SM89" in said
        assert "bare.engine has no sidecar" in said
        assert said.endswith("Build it with: fer-edge export")

    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(SessionError, match="there is none for the graph 1111111111111111"):
            find_engine(tmp_path / "nowhere", graph_sha256=GRAPH, library=library(), device=ORIN)

    def test_a_type_that_no_graph_has(self, tmp_path: Path) -> None:
        engine = write_engine(tmp_path, PLAN, SIDECAR)
        text = sidecar_path(engine.path).read_text()
        sidecar_path(engine.path).write_text(text.replace('"uint8"', '"foo"'))
        with pytest.raises(SessionError, match=r"dtype: got 'foo', expected one of uint8.*build the engine again"):
            read_engine(engine.path)

    def test_several_fit(self, tmp_path: Path) -> None:
        for precision in ("fp16", "fp32"):
            write_engine(tmp_path, PLAN, dataclasses.replace(SIDECAR, precision=precision))
        with pytest.raises(SessionError, match=r"several engines for this graph and GPU: .*fp16.*fp32.*; name the one"):
            find_engine(tmp_path, graph_sha256=GRAPH, library=library(), device=ORIN)

    def test_the_file_itself(self, tmp_path: Path) -> None:
        path = write_engine(tmp_path, PLAN, SIDECAR).path
        assert find_engine(path, graph_sha256=GRAPH, library=library(), device=ORIN).path == path
        with pytest.raises(SessionError, match=f"{path} is stale or foreign"):
            find_engine(path, graph_sha256=GRAPH, library=library("10.4.0"), device=ORIN)


class TestLayers:
    def test_of_both_forms(self) -> None:
        old = '{"Layers": [{"Name": "a", "LayerType": "Conv", "Outputs": [{"Format/Datatype": "FP16"}]}]}'
        new = '{"Layers": [{"Name": "a", "LayerType": "Conv", "Outputs": [{"DataType": "Half", "Format": "Linear"}]}]}'
        assert read_layers(old) == (EngineLayer(name="a", kind="Conv", format="FP16"),)
        assert read_layers(new) == (EngineLayer(name="a", kind="Conv", format="Half Linear"),)
        assert read_layers('{"Layers": ["a", "b"], "Bindings": ["x"]}') == (
            EngineLayer(name="a"),
            EngineLayer(name="b"),
        )

    @pytest.mark.parametrize("text", ["", "{}", "[1]"])
    def test_of_neither(self, text: str) -> None:
        with pytest.raises(SessionError, match="cannot be read"):
            read_layers(text)
