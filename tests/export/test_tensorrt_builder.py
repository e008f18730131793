from __future__ import annotations

from types import ModuleType

import fake_cuda
import fake_tensorrt
import pytest
from fake_cuda import FakeCuda
from onnx import TensorProto, helper
from tiny import SIZE, tiny_encoder, tiny_head

from fer_edge.core.errors import InputError, SessionError
from fer_edge.export.graph_passes import InputShapes
from fer_edge.export.tensorrt_builder import BuildOptions, build_plan
from fer_edge.runtime.tensorrt_library import TensorRtLibrary, load_tensorrt

VERSIONS = {
    "8.5.2.2": "8.5",
    "8.6.2": "8.6",
    "10.3.0": "10.3",
    "10.13.2.6": "10.13",
    "11.4.0": "11",
    "11.4.1": "11.4.1",
}
FRAMES = {"frames": InputShapes(min=(1, SIZE, SIZE), opt=(1, SIZE, SIZE), max=(4, SIZE, SIZE))}
ENCODER = tiny_encoder().SerializeToString()


class Fake:
    """A fake library with what it built last."""

    def __init__(self, patch: pytest.MonkeyPatch, version: str, package: str = "tensorrt") -> None:
        cuda = fake_cuda.install(patch, FakeCuda())
        self.module: ModuleType = fake_tensorrt.install(patch, version, cuda, package=package)
        self.library: TensorRtLibrary = load_tensorrt(package)  # type: ignore[arg-type]

    @property
    def config(self) -> object:
        return self.module.built[-1].config

    @property
    def flags(self) -> set[str]:
        return self.module.built[-1].config.state.flags


@pytest.fixture(params=list(VERSIONS))
def any_fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch, request.param)


class TestEveryVersion:
    def test_builds(self, any_fake: Fake) -> None:
        built = build_plan(any_fake.library, ENCODER, BuildOptions(shapes=FRAMES))
        assert built.plan.startswith(b"PLAN")
        assert built.outputs == ("features", "attention")
        assert built.dtypes == {"frames": "UINT8"}
        assert built.timing_cache == b"timings of " + any_fake.library.version.encode()
        assert any_fake.library.flavour.name == VERSIONS[any_fake.library.version]

    def test_fp16_stands_in_a_flag_up_to_8_and_in_the_graph_after(self, any_fake: Fake) -> None:
        build_plan(any_fake.library, ENCODER, BuildOptions(shapes=FRAMES, float16=True, quantized=True))
        old = any_fake.library.version.startswith("8")
        assert any_fake.flags == ({"FP16", "INT8"} if old else set())
        assert any_fake.module.built[-1].network.strong is not old

    def test_nodes_that_stay_fp32(self, any_fake: Fake) -> None:
        graph = tiny_head()
        for number, node in enumerate(graph.graph.node):
            node.name = f"{node.op_type}{number}"
        shapes = {
            "features": InputShapes(min=(1, 4, 8), opt=(1, 4, 8), max=(1, 4, 8)),
            "length": InputShapes(min=(1,), opt=(1,), max=(1,)),
        }
        options = BuildOptions(shapes=shapes, float16=True, keep_float32=("Softmax2",))
        build_plan(any_fake.library, graph.SerializeToString(), options)
        layers = any_fake.module.built[-1].network.layers
        kept = [layer.name for layer in layers if getattr(layer, "precision", None) is not None]
        assert kept == (["Softmax2"] if any_fake.library.version.startswith("8") else [])

    def test_options_reach_the_config(self, any_fake: Fake) -> None:
        core = 1 if any_fake.library.flavour.dla else None
        options = BuildOptions(shapes=FRAMES, workspace_bytes=512 << 20, dla_core=core)
        build_plan(any_fake.library, ENCODER, options)
        config = any_fake.config
        assert config.state.pools == {"WORKSPACE": 512 << 20}
        assert config.state.profiles == [{"frames": [[1, SIZE, SIZE], [1, SIZE, SIZE], [4, SIZE, SIZE]]}]
        assert getattr(config, "DLA_core", None) == core
        assert ("GPU_FALLBACK" in any_fake.flags) is (core is not None)
        assert config.profiling_verbosity.name == "DETAILED"

    def test_a_refused_node_is_named(self, any_fake: Fake) -> None:
        node = helper.make_node("NonSense", ["frames"], ["y"], name="the-odd-one")
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        with pytest.raises(
            SessionError, match=r"cannot read the-part: node 'the-odd-one' \(NonSense\): Plugin not found"
        ):
            build_plan(any_fake.library, model.SerializeToString(), BuildOptions(shapes=FRAMES), name="the-part")

    def test_what_is_no_graph(self, any_fake: Fake) -> None:
        with pytest.raises(SessionError, match="cannot read graph: the graph: Failed to parse"):
            build_plan(any_fake.library, b"garbage", BuildOptions(shapes=FRAMES))

    def test_an_input_without_shapes(self, any_fake: Fake) -> None:
        with pytest.raises(InputError, match="no shapes are given for the input 'frames'"):
            build_plan(any_fake.library, ENCODER, BuildOptions(shapes={}))

    def test_other_gpus_ahead_of_time_are_for_rtx(self, any_fake: Fake) -> None:
        with pytest.raises(InputError, match="builds only for the GPU of this machine"):
            build_plan(any_fake.library, ENCODER, BuildOptions(shapes=FRAMES, compute_capabilities=(86,)))

    def test_warnings_are_kept(self, any_fake: Fake) -> None:
        shapes = {
            "features": InputShapes(min=(1, 4, 8), opt=(1, 4, 8), max=(1, 4, 8)),
            "length": InputShapes(min=(1,), opt=(1,), max=(1,)),
        }
        built = build_plan(any_fake.library, tiny_head().SerializeToString(), BuildOptions(shapes=shapes))
        old = any_fake.library.version.startswith("8")
        assert built.dtypes["length"] == ("INT32" if old else "INT64")
        assert bool(built.warnings) is old


class TestTimingCache:
    def test_what_was_found_before_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = Fake(monkeypatch, "10.3.0")
        build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES, timing_cache=b"timings of 10.3.0"))
        assert fake.config.state.cache.blob == b"timings of 10.3.0"

    def test_what_does_not_fit_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = Fake(monkeypatch, "10.3.0")
        build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES, timing_cache=b"timings of another"))
        assert fake.config.state.cache.blob == b""

    def test_rtx_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = Fake(monkeypatch, "1.7.1.116", "tensorrt_rtx")
        built = build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES, compute_capabilities=(86,)))
        assert built.timing_cache is None


class TestRtx:
    def test_builds_for_a_list_of_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = Fake(monkeypatch, "1.7.1.116", "tensorrt_rtx")
        build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES, float16=True, compute_capabilities=(75, 89)))
        assert fake.config.state.capabilities == {0: "SM75", 1: "SM89"}
        assert fake.flags == set()

    def test_turing_wants_fp16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = Fake(monkeypatch, "1.7.1.116", "tensorrt_rtx")
        with pytest.raises(InputError, match="no FP32 matrices on SM75; take an FP16 precision"):
            build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES, compute_capabilities=(75, 89)))

    def test_orin_and_hopper_are_not_its_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = Fake(monkeypatch, "1.7.1.116", "tensorrt_rtx")
        with pytest.raises(InputError, match="does not build for SM87; it builds for SM75, SM80, SM86"):
            build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES, compute_capabilities=(87,)))


class TestProgress:
    def test_phases_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[tuple[str, int, int]] = []
        fake = Fake(monkeypatch, "10.3.0")
        build_plan(
            fake.library, ENCODER, BuildOptions(shapes=FRAMES), name="encoder", progress=lambda *a: told.append(a)
        )
        assert told[0] == ("building encoder: building engine", 0, 3)
        assert ("building encoder: timing tactics", 1, 3) in told
        assert told[-1] == ("building encoder: building engine", 3, 3)

    def test_ctrl_c_ends_the_build_and_not_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing may be raised through TensorRT's own frames."""
        fake = Fake(monkeypatch, "10.3.0")

        def interrupted(*_told: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_plan(fake.library, ENCODER, BuildOptions(shapes=FRAMES), progress=interrupted)
        assert not fake.module.built


class TestLibrary:
    @pytest.mark.parametrize("version", ["8.4.1", "7"])
    def test_too_old(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        with pytest.raises(SessionError, match="install a newer one"):
            Fake(monkeypatch, version)
