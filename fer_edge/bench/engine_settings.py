"""How each engine's settings fare on this machine: time of every setting against the default, where the time goes."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from fer_edge.bench.latency import Probe, Ratio, measure_interleaved, ratio_over_rounds
from fer_edge.bench.workload import FACE_BOX_XYXY, camera_frame
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import require
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.preprocess import crop_face
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Array, Float32, Progress, Uint8
from fer_edge.data import Dataset
from fer_edge.runtime.evaluate import evaluate
from fer_edge.runtime.inference import Network
from fer_edge.runtime.session import Session

if TYPE_CHECKING:
    from fer_edge.runtime.openvino_session import OpenVinoSession

__all__ = ["Agreement", "EngineReport", "IntegerRate", "OperatorTime", "SettingTime", "measure_engines"]

Opener: TypeAlias = Callable[[bytes], Session]

_STAGES: Final = ("encoder", "head", "head_window")
_WARM_UP: Final = 20
_PER_ROUND: Final = 3
_PROFILED: Final = 200
_MATRIX: Final = 1024
_MATRIX_ROUNDS: Final = 20
_ORT: Final = "onnxruntime"
_OPENVINO: Final = "openvino"


@dataclass(frozen=True, kw_only=True)
class SettingTime:
    """One engine under one setting, on one face.

    Attributes:
        engine: ``"onnxruntime"`` or ``"openvino"``.
        variant: of the bundle.
        setting: what differs from the engine's default; ``"default"`` for the default itself.
        median_ms: of each stage: the encoder, the head at T = 1, the head at a full window.
        least_ms: the least of each stage, which a busy machine disturbs least.
        over_default: the sum of the stages over the engine's own default with the same variant, round by round.
        over_onnxruntime: the same over ONNX Runtime's default with the first variant measured.
    """

    engine: str
    variant: str
    setting: str
    median_ms: Mapping[str, float]
    least_ms: Mapping[str, float]
    over_default: Ratio
    over_onnxruntime: Ratio


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """One kind of operator in the encoder, by the engine's own profiler.

    Attributes:
        engine: which.
        variant: of the bundle.
        operator: the engine's name of it.
        ms: per run, a low quantile over the runs (a fifth are below).
        share: of all operators' time.
    """

    engine: str
    variant: str
    operator: str
    ms: float
    share: float


@dataclass(frozen=True, kw_only=True)
class IntegerRate:
    """How near an encoder's INT8 comes to what one core can do.

    Attributes:
        engine: which.
        variant: of the bundle.
        encoder_gmacs_per_s: multiply-accumulates of the encoder over its least time, in 1e9 a second.
        matrix_gmacs_per_s: the same of a uint8 x int8 matrix product of 1,024 in each direction in ONNX Runtime, the
            largest rate that was got out of this core.
    """

    engine: str
    variant: str
    encoder_gmacs_per_s: float
    matrix_gmacs_per_s: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A variant in one engine against the bundle's FP32 in ONNX Runtime, on the choosing split.

    Attributes:
        engine: which.
        variant: of the bundle.
        shapes: ``"fixed"`` programs as the sessions run them, or one program for ``"open"`` shapes.
        n: rows.
        top1: share of right labels.
        flip_rate: share of labels that differ from FP32's.
        max_abs_logit_diff: before temperature.
    """

    engine: str
    variant: str
    shapes: str
    n: int
    top1: float
    flip_rate: float
    max_abs_logit_diff: float


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What `measure_engines` found; JSON by `to_json`."""

    created: str
    command: str
    device: Mapping[str, Any]
    bundle: str
    bundle_sha256: str
    threads: int
    rounds: int
    settings: tuple[SettingTime, ...]
    operators: tuple[OperatorTime, ...]
    rates: tuple[IntegerRate, ...]
    agreement: tuple[Agreement, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(encode(self))


def measure_engines(
    bundle: Bundle,
    *,
    variants: tuple[str, ...] = ("int8",),
    data: Dataset | None = None,
    threads: int = 1,
    rounds: int = 200,
    command: str = "",
    progress: Progress | None = None,
) -> EngineReport:
    """Time ONNX Runtime and OpenVINO under every setting, interleaved in one process.

    Args:
        bundle: an open bundle.
        variants: which of its variants; the settings are tried on the first.
        data: with it, also how each engine's labels agree with FP32, on the choosing split.
        threads: of every session.
        rounds: visits of each setting.
        command: recorded in the report.
        progress: told what is going on.

    Raises:
        InputError, BundleError: the data's labels mean something else than the bundle's, or it has no such variant.
        MissingPackageError: ONNX Runtime or OpenVINO is not installed.
    """
    require("onnxruntime", needed_by="the engines' comparison", extra="cpu")
    with without_telemetry():
        require("openvino", needed_by="the engines' comparison", extra="openvino")
    require("onnx", needed_by="the engines' comparison", extra="calibrate")
    if data is not None:
        data.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name!r}")
    device = machine_report().to_json()
    settings = _settings(bundle, variants, threads, rounds, progress)
    return EngineReport(
        created=timestamp(),
        command=command,
        device=device,
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        threads=threads,
        rounds=rounds,
        settings=settings,
        operators=tuple(row for name in variants for row in _operators(bundle, name, threads)),
        rates=tuple(_rates(bundle, settings, threads)),
        agreement=() if data is None else tuple(_agreement(bundle, variants, data, threads, progress)),
    )


def _openers(threads: int) -> dict[tuple[str, str], Opener]:
    """Engine and setting -> what opens a graph so."""
    from fer_edge.runtime.openvino_session import OpenVinoSession, OpenVinoSettings
    from fer_edge.runtime.ort_session import OrtSession, OrtSettings

    ort, vino = OrtSettings(), OpenVinoSettings()
    ort_settings = {
        "default": ort,
        "spinning": replace(ort, spinning=True),
        "no arena": replace(ort, arena=False),
        "no memory pattern": replace(ort, memory_pattern=False),
        "weights in the arena": replace(ort, weights_in_arena=True),
        "no prepacking": replace(ort, prepacking=False),
        "optimisation extended": replace(ort, optimisation="extended"),
        "optimisation basic": replace(ort, optimisation="basic"),
        "dynamic block base 4": replace(ort, block_base=4),
    }
    vino_settings = {"default": vino, "bf16": replace(vino, precision="bf16"), "pinned": replace(vino, pinning=True)}
    openers: dict[tuple[str, str], Opener] = {}
    for name, chosen in ort_settings.items():
        openers[_ORT, name] = partial(OrtSession, threads=threads, settings=chosen)
    for name, each in vino_settings.items():
        openers[_OPENVINO, name] = partial(OpenVinoSession, threads=threads, settings=each)
    openers[_OPENVINO, "open shapes"] = partial(_open_shapes, threads=threads)
    return openers


def _open_shapes(graph: bytes, *, threads: int) -> OpenVinoSession:
    """OpenVINO with one program for every shape, which `OpenVinoSession` never makes."""
    from fer_edge.runtime.openvino_session import OpenVinoSession, openvino_core

    class OpenShapes(OpenVinoSession):
        def __init__(self) -> None:
            super().__init__(graph, threads=threads)
            compiled = openvino_core().compile_model(self._model, "CPU", self._settings)
            self._request = compiled.create_infer_request()

        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            self._request.infer(dict(feeds), share_inputs=True)
            got = self._request.get_output_tensor
            return {spec.name: got(index).data.copy() for index, spec in enumerate(self.outputs)}

    return OpenShapes()


def _network(bundle: Bundle, variant: str, opener: Opener) -> Network:
    chosen = bundle.variant(variant)
    encoder, head = (opener(bundle.read_graph(file)) for file in chosen.graphs)
    return Network(bundle=bundle, variant=chosen, encoder=encoder, head=head)


def _settings(
    bundle: Bundle, variants: tuple[str, ...], threads: int, rounds: int, progress: Progress | None
) -> tuple[SettingTime, ...]:
    keys = [(engine, name, variants[0]) for engine, name in _openers(threads)]
    keys += [(engine, "default", other) for other in variants[1:] for engine in (_ORT, _OPENVINO)]
    openers = _openers(threads)
    with ExitStack() as stack:
        networks = {key: stack.enter_context(_network(bundle, key[2], openers[key[0], key[1]])) for key in keys}
        probes = [
            Probe(name="/".join(key), stages=_stages(network, bundle), per_round=_PER_ROUND)
            for key, network in networks.items()
        ]

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress("timing the engines", done, total)

        times = measure_interleaved(probes, rounds=rounds, warm_up=_WARM_UP, progress=report)
    base = times["/".join((_ORT, "default", variants[0]))].total()
    return tuple(
        SettingTime(
            engine=engine,
            variant=variant,
            setting=setting,
            median_ms={stage: _ms(np.median(found.stages[stage])) for stage in _STAGES},
            least_ms={stage: _ms(found.stages[stage].min()) for stage in _STAGES},
            over_default=ratio_over_rounds(found.total(), times["/".join((engine, "default", variant))].total()),
            over_onnxruntime=ratio_over_rounds(found.total(), base),
        )
        for engine, setting, variant in keys
        for found in (times["/".join((engine, setting, variant))],)
    )


def _ms(nanoseconds: Any) -> float:
    return round(float(nanoseconds) / 1e6, 4)


def _stages(network: Network, bundle: Bundle) -> dict[str, Callable[[], object]]:
    face = crop_face(camera_frame(), FACE_BOX_XYXY, bundle.manifest.preprocess)[None]
    feature = network.encode(face)[:, None]
    window = np.repeat(feature, network.window, axis=1)
    one, full = np.ones(1, np.int64), np.full(1, network.window, np.int64)
    return {
        "encoder": lambda: network.encode(face),
        "head": lambda: network.logits(feature, one),
        "head_window": lambda: network.logits(window, full),
    }


def _rates(bundle: Bundle, settings: tuple[SettingTime, ...], threads: int) -> Iterator[IntegerRate]:
    peak = _matrix_rate(threads)
    for row in settings:
        variant = bundle.variant(row.variant)
        if row.setting == "default" and variant.precision == "int8" and variant.encoder.macs:
            rate = variant.encoder.macs / row.least_ms["encoder"] / 1e6
            yield IntegerRate(
                engine=row.engine,
                variant=row.variant,
                encoder_gmacs_per_s=round(rate, 1),
                matrix_gmacs_per_s=round(peak, 1),
            )


def _matrix_rate(threads: int) -> float:
    from onnx import TensorProto, helper, numpy_helper

    from fer_edge.runtime.ort_session import OrtSession

    weights = np.random.default_rng(0).integers(-64, 64, (_MATRIX, _MATRIX)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weights"], ["y"])],
        "matrix",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [_MATRIX, _MATRIX])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [_MATRIX, _MATRIX])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": np.full((_MATRIX, _MATRIX), 3, np.uint8)}
    with OrtSession(model.SerializeToString(), threads=threads) as session:
        probe = Probe(name="matrix", stages={"run": lambda: session.run(feeds)}, per_round=_PER_ROUND)
        times = measure_interleaved([probe], rounds=_MATRIX_ROUNDS, warm_up=2)["matrix"].total()
    return float(_MATRIX**3 / times.min())


def _operators(bundle: Bundle, variant: str, threads: int) -> Iterator[OperatorTime]:
    """Where the encoder's time goes on one face."""
    graph = bundle.graph_bytes(variant, "encoder")
    face = crop_face(camera_frame(), FACE_BOX_XYXY, bundle.manifest.preprocess)[None]
    for engine, profile in ((_ORT, _profile_ort), (_OPENVINO, _profile_openvino)):
        times: dict[str, float] = defaultdict(float)
        for kind, runs in profile(graph, face, threads):
            times[kind] += float(np.quantile(runs, 0.2))
        total = sum(times.values())
        for kind, ms in sorted(times.items(), key=lambda item: -item[1]):
            if ms >= total / 200:
                yield OperatorTime(
                    engine=engine, variant=variant, operator=kind, ms=round(ms, 4), share=round(ms / total, 4)
                )


def _profile_ort(graph: bytes, face: Uint8, threads: int) -> Iterator[tuple[str, list[float]]]:
    import onnxruntime

    from fer_edge.runtime.ort_session import OrtSettings, ort_options

    with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
        options = ort_options(threads, OrtSettings())
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(_PROFILED):
            session.run(None, {"frames": face})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    for (kind, _), runs in nodes.items():
        yield kind, runs


def _profile_openvino(graph: bytes, face: Uint8, threads: int) -> Iterator[tuple[str, list[float]]]:
    from fer_edge.runtime.openvino_session import openvino_core

    core = openvino_core()
    model = core.read_model(graph)
    model.reshape(list(face.shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(_PROFILED):
        request.infer({"frames": face})
        for node in request.get_profiling_info():
            kind = f"{node.node_type} ({node.exec_type})"
            nodes[kind, node.node_name].append(node.real_time.total_seconds() * 1e3)
    for (kind, _), runs in nodes.items():
        yield kind, runs


def _agreement(
    bundle: Bundle, variants: tuple[str, ...], data: Dataset, threads: int, progress: Progress | None
) -> Iterator[Agreement]:
    split = data.split("choose")
    openers = _openers(threads)

    def logits(engine: str, setting: str, variant: str) -> Float32:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(f"{variant} in {engine}, {setting}", done, total)

        with _network(bundle, variant, openers[engine, setting]) as network:
            return evaluate(network, split.images, bundle.manifest.preprocess, progress=report)

    reference = logits(_ORT, "default", "fp32")
    for variant in dict.fromkeys(("fp32", *variants)):
        for engine, setting in ((_ORT, "default"), (_OPENVINO, "default"), (_OPENVINO, "open shapes")):
            got = logits(engine, setting, variant)
            labels = got.argmax(axis=1)
            yield Agreement(
                engine=engine,
                variant=variant,
                shapes="open" if setting == "open shapes" or engine == _ORT else "fixed",
                n=len(labels),
                top1=float((labels == split.labels).mean()),
                flip_rate=float((labels != reference.argmax(axis=1)).mean()),
                max_abs_logit_diff=float(np.abs(got - reference).max()),
            )
