"""Time ONNX Runtime and OpenVINO on a bundle under every setting, interleaved, and show where their time goes.

    python bench/engine_settings.py base --data fer2013:PATH --json bench/results/DEVICE/engines.json

For the choice of an engine and its settings on a new machine; `fer-edge bench` measures the variants with the settings
that the runtime uses. With --data, the labels of each engine are also compared with those of FP32 in ONNX Runtime.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.bench.latency import Probe, Samples, measure_interleaved, ratio_over_rounds
from fer_edge.bench.workload import camera_face
from fer_edge.cli.console import progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import require
from fer_edge.core.evaluate import evaluate
from fer_edge.core.files import write_json
from fer_edge.core.json import encode
from fer_edge.core.tables import Column, Table, print_table
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Array, Float32, Progress, Uint8
from fer_edge.data import Dataset, load_dataset
from fer_edge.runtime.inference import Network
from fer_edge.runtime.session import Session

if TYPE_CHECKING:
    from fer_edge.runtime.openvino_session import OpenVinoSession

ORT, OPENVINO = "onnxruntime", "openvino"
STAGES = ("encoder", "head", "head_window")
PROFILED = 200
MATRIX = 1024

Opener: TypeAlias = Callable[[bytes], Session]
Rows: TypeAlias = list[dict[str, Any]]


def measure_engines(
    bundle: Bundle,
    variants: tuple[str, ...],
    data: Dataset | None,
    *,
    threads: int,
    rounds: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure settings, operators, the rate of INT8 arithmetic and the agreement of labels.

    Args:
        bundle: an open bundle.
        variants: variants of it; the settings are tried on the first.
        data: where given, labels are compared on its choosing split.
        threads: of every session.
        rounds: timing rounds per setting.
        progress: called with each step.

    Raises:
        InputError, BundleError: the data's labels are of other expressions, or there is no such variant.
        MissingPackageError: ONNX Runtime, OpenVINO or onnx is not installed.
    """
    require("onnxruntime", needed_by="the comparison of engines", extra="cpu")
    with without_telemetry():
        require("openvino", needed_by="the comparison of engines", extra="openvino")
    require("onnx", needed_by="the comparison of engines", extra="calibrate")
    if data is not None:
        data.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name!r}")
    result = result_head("engine settings") | {
        "bundle": bundle.manifest.name,
        "bundle_sha256": bundle.sha256,
        "threads": threads,
        "rounds": rounds,
        "settings": time_settings(bundle, variants, threads, rounds, progress),
    }
    result["operators"] = [row for name in variants for row in operator_times(bundle, name, threads)]
    result["rates"] = list(integer_rates(bundle, result["settings"], threads))
    result["agreement"] = [] if data is None else list(agreement(bundle, variants, data, threads, progress))
    return result


def openers(threads: int) -> dict[tuple[str, str], Opener]:
    """Return what opens a graph in an engine under a setting."""
    from onnxruntime import GraphOptimizationLevel

    from fer_edge.runtime.openvino_session import OpenVinoSession

    entries = {
        "spinning": {"session.intra_op.allow_spinning": "1", "session.inter_op.allow_spinning": "1"},
        "weights in the arena": {"session.use_device_allocator_for_initializers": "0"},
        "no prepacking": {"session.disable_prepacking": "1"},
        "dynamic block base 4": {"session.dynamic_block_base": "4"},
    }
    fields: dict[str, dict[str, Any]] = {
        "default": {},
        "no arena": {"enable_cpu_mem_arena": False},
        "no memory pattern": {"enable_mem_pattern": False},
        "optimisation extended": {"graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_EXTENDED},
        "optimisation basic": {"graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_BASIC},
    }
    found: dict[tuple[str, str], Opener] = {
        (ORT, name): partial(open_ort, threads=threads, fields=fields.get(name, {}), entries=entries.get(name, {}))
        for name in (*fields, *entries)
    }
    properties = {"default": {}, "bf16": {"INFERENCE_PRECISION_HINT": "bf16"}, "pinned": {"ENABLE_CPU_PINNING": True}}
    for name, changed in properties.items():
        found[OPENVINO, name] = partial(OpenVinoSession, threads=threads, settings=changed)
    return found | {(OPENVINO, "open shapes"): partial(open_shapes, threads=threads)}


def open_ort(graph: bytes, *, threads: int, fields: Mapping[str, Any], entries: Mapping[str, str]) -> Session:
    """Open ONNX Runtime with changed session options."""
    from fer_edge.runtime.ort_session import OrtSession, ort_options

    options = ort_options(threads, entries=entries)
    for name, value in fields.items():
        setattr(options, name, value)
    return OrtSession(graph, threads=threads, options=options)


def open_shapes(graph: bytes, *, threads: int) -> OpenVinoSession:
    """Open OpenVINO with one program for every shape, which `OpenVinoSession` never does."""
    from fer_edge.runtime.openvino_session import OpenVinoSession, openvino_core

    class OpenShapes(OpenVinoSession):
        def __init__(self) -> None:
            super().__init__(graph, threads=threads)
            compiled = openvino_core().compile_model(self._model, "CPU", self._settings)
            self._request = compiled.create_infer_request()

        def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            self._request.infer(dict(feeds), share_inputs=True)
            got = self._request.get_output_tensor
            return {spec.name: got(index).data.copy() for index, spec in enumerate(self.outputs)}

    return OpenShapes()


def open_network(bundle: Bundle, variant: str, opener: Opener) -> Network:
    """Open a variant's two graphs."""
    chosen = bundle.variant(variant)
    encoder, head = (opener(bundle.read_graph(file)) for file in chosen.graphs)
    return Network(bundle=bundle, variant=chosen, encoder=encoder, head=head)


def face_of(bundle: Bundle) -> Uint8:
    """Cut the drawn face as the bundle wants it, uint8 (1, S, S)."""
    return camera_face(bundle.manifest.preprocess)[None]


def time_settings(
    bundle: Bundle, variants: tuple[str, ...], threads: int, rounds: int, progress: Progress | None
) -> Rows:
    """Time every setting with the first variant, and the defaults with the others.

    `over_default` is over the engine's own default with the same variant, `over_onnxruntime` over ONNX Runtime's with
    the first; ratios are of the sum of the stages, round by round. `least_ms` is disturbed least by a busy machine.
    """
    opening = openers(threads)
    keys = [(engine, setting, variants[0]) for engine, setting in opening]
    keys += [(engine, "default", other) for other in variants[1:] for engine in (ORT, OPENVINO)]
    with ExitStack() as stack:
        probes = []
        for key in keys:
            network = stack.enter_context(open_network(bundle, key[2], opening[key[:2]]))
            probes.append(Probe(name="/".join(key), stages=stage_calls(network, face_of(bundle)), per_round=3))
        samples = measure_interleaved(probes, rounds=rounds, warm_up=20, progress=progress)

    def of(*key: str) -> Samples:
        return samples["/".join(key)]

    return [
        {
            "engine": engine,
            "variant": variant,
            "setting": setting,
            "median_ms": {stage: milliseconds(np.median(found.stages[stage])) for stage in STAGES},
            "least_ms": {stage: milliseconds(found.stages[stage].min()) for stage in STAGES},
            "over_default": encode(ratio_over_rounds(found.total(), of(engine, "default", variant).total())),
            "over_onnxruntime": encode(ratio_over_rounds(found.total(), of(ORT, "default", variants[0]).total())),
        }
        for engine, setting, variant in keys
        for found in (of(engine, setting, variant),)
    ]


def milliseconds(nanoseconds: Any) -> float:
    """Convert nanoseconds."""
    return round(float(nanoseconds) / 1e6, 4)


def stage_calls(network: Network, face: Uint8) -> dict[str, Callable[[], object]]:
    """Make a call of the encoder, of the head at T = 1 and of the head on a full window."""
    feature = network.encode(face)[:, None]
    window = np.repeat(feature, network.window, axis=1)
    one, full = np.ones(1, np.int64), np.full(1, network.window, np.int64)
    return {
        "encoder": lambda: network.encode(face),
        "head": lambda: network.logits(feature, one),
        "head_window": lambda: network.logits(window, full),
    }


def integer_rates(bundle: Bundle, settings: Rows, threads: int) -> Iterator[dict[str, Any]]:
    """Compare the 8-bit multiply-accumulates a second of each encoder with those of a large matrix product."""
    peak = matrix_rate(threads)
    for row in settings:
        variant = bundle.variant(row["variant"])
        if row["setting"] == "default" and variant.precision == "int8" and variant.encoder.macs:
            yield {
                "engine": row["engine"],
                "variant": row["variant"],
                "encoder_gmacs_per_s": round(variant.encoder.macs / row["least_ms"]["encoder"] / 1e6, 1),
                "matrix_gmacs_per_s": round(peak, 1),
            }


def matrix_rate(threads: int) -> float:
    """Measure 1e9 multiply-accumulates a second of a uint8 x int8 product of 1,024 in each direction."""
    from onnx import TensorProto, helper, numpy_helper

    from fer_edge.runtime.ort_session import OrtSession

    weights = np.random.default_rng(0).integers(-64, 64, (MATRIX, MATRIX)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weights"], ["y"])],
        "matrix",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [MATRIX, MATRIX])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [MATRIX, MATRIX])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": np.full((MATRIX, MATRIX), 3, np.uint8)}
    with OrtSession(model.SerializeToString(), threads=threads) as session:
        probe = Probe(name="matrix", stages={"run": lambda: session.run(feeds)}, per_round=3)
        times = measure_interleaved([probe], rounds=20, warm_up=2)["matrix"].total()
    return float(MATRIX**3 / times.min())


def operator_times(bundle: Bundle, variant: str, threads: int) -> Iterator[dict[str, Any]]:
    """Profile the encoder on one face: milliseconds a run of each kind of operator, a low quantile over the runs."""
    graph = bundle.graph_bytes(variant, "encoder")
    for engine, profile in ((ORT, profile_ort), (OPENVINO, profile_openvino)):
        times: dict[str, float] = defaultdict(float)
        for kind, runs in profile(graph, face_of(bundle), threads):
            times[kind] += float(np.quantile(runs, 0.2))
        total = sum(times.values())
        for kind, ms in sorted(times.items(), key=lambda item: -item[1]):
            if ms >= total / 200:
                yield {
                    "engine": engine, "variant": variant, "operator": kind, "ms": round(ms, 4),
                    "share": round(ms / total, 4),
                }  # fmt: skip


def profile_ort(graph: bytes, face: Uint8, threads: int) -> Iterator[tuple[str, list[float]]]:
    """Profile with ONNX Runtime: the kind of each node and its milliseconds."""
    import onnxruntime

    from fer_edge.runtime.ort_session import ort_options

    with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
        options = ort_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(PROFILED):
            session.run(None, {"frames": face})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    for (kind, _), runs in nodes.items():
        yield kind, runs


def profile_openvino(graph: bytes, face: Uint8, threads: int) -> Iterator[tuple[str, list[float]]]:
    """Profile with OpenVINO: the kind of each node and its milliseconds."""
    from fer_edge.runtime.openvino_session import openvino_core

    core = openvino_core()
    model = core.read_model(graph)
    model.reshape(list(face.shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(PROFILED):
        request.infer({"frames": face})
        for node in request.get_profiling_info():
            kind = f"{node.node_type} ({node.exec_type})"
            nodes[kind, node.node_name].append(node.real_time.total_seconds() * 1e3)
    for (kind, _), runs in nodes.items():
        yield kind, runs


def agreement(
    bundle: Bundle, variants: tuple[str, ...], data: Dataset, threads: int, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Compare each variant in each engine with the bundle's FP32 in ONNX Runtime, on the choosing split."""
    split, opening = data.split("choose"), openers(threads)
    say = progress or (lambda what, done, total: None)

    def logits(engine: str, setting: str, variant: str) -> Float32:
        with open_network(bundle, variant, opening[engine, setting]) as network:
            what = f"{variant} in {engine}, {setting}"
            return evaluate(
                network,
                split.images,
                bundle.manifest.preprocess,
                progress=lambda done, total: say(what, done, total),
            ).by_window[1]

    reference = logits(ORT, "default", "fp32")
    for variant in dict.fromkeys(("fp32", *variants)):
        for engine, setting in ((ORT, "default"), (OPENVINO, "default"), (OPENVINO, "open shapes")):
            got = logits(engine, setting, variant)
            labels = got.argmax(axis=1)
            yield {
                "engine": engine,
                "variant": variant,
                "shapes": "open" if setting == "open shapes" or engine == ORT else "fixed",
                "n": len(labels),
                "top1": float((labels == split.labels).mean()),
                "flip_rate": float((labels != reference.argmax(axis=1)).mean()),
                "max_abs_logit_diff": float(np.abs(got - reference).max()),
            }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Tabulate a result."""
    who: dict[Any, Any] = {"engine": lambda row: row["engine"], "variant": lambda row: row["variant"]}

    def stage(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: f"{row['median_ms'][name]:.3f}"

    yield Table.of(
        result["settings"],
        {
            **who,
            "setting": lambda row: row["setting"],
            "encoder": stage("encoder"),
            Column("head", priority=1): stage("head"),
            Column("head, window", priority=1): stage("head_window"),
            "over default": lambda row: f"{row['over_default']['median']:.2f}",
            Column("over ONNX Runtime", priority=2): lambda row: f"{row['over_onnxruntime']['median']:.2f}",
        },
        title=f"{result['bundle']}: one face, {result['threads']} thread(s), medians in ms",
    )
    yield Table.of(
        result["operators"],
        {
            **who,
            "operator": lambda row: row["operator"],
            "ms": lambda row: f"{row['ms']:.3f}",
            "share": lambda row: f"{row['share']:.0%}",
        },
        title="where the encoder's time goes",
    )
    yield Table.of(
        result["rates"],
        {
            **who,
            "encoder": lambda row: f"{row['encoder_gmacs_per_s']:.0f}",
            "large matrix product": lambda row: f"{row['matrix_gmacs_per_s']:.0f}",
            "share": lambda row: f"{row['encoder_gmacs_per_s'] / row['matrix_gmacs_per_s']:.0%}",
        },
        title="8-bit multiply-accumulates a second, in 1e9",
    )
    if result["agreement"]:
        yield Table.of(
            result["agreement"],
            {
                **who,
                "shapes": lambda row: row["shapes"],
                "top-1": lambda row: f"{row['top1']:.2%}",
                "flips": lambda row: f"{row['flip_rate']:.2%}",
                "largest logit difference": lambda row: f"{row['max_abs_logit_diff']:.3f}",
            },
            title=f"against FP32 in ONNX Runtime, {result['agreement'][0]['n']:,} rows",
        )


@click.command(help=__doc__)
@click.argument("bundle", metavar="BUNDLE")
@click.option("--variant", "variants", multiple=True, help="Variant; repeatable. Settings are tried on the first.")
@click.option("--data", metavar="SPEC", help="Also compare labels with FP32's on the choosing split.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of every session.")
@click.option("--rounds", type=click.IntRange(min=1), default=200, show_default=True, help="Rounds per setting.")
@json_option
@report_errors
def main(
    bundle: str, variants: tuple[str, ...], data: str | None, threads: int, rounds: int, json_file: Path | None
) -> None:
    """Measure and print."""
    with progress("measuring") as bar:
        result = measure_engines(
            Bundle.open(bundle),
            variants or ("int8",),
            None if data is None else load_dataset(data, progress=bar),
            threads=threads,
            rounds=rounds,
            progress=bar,
        )
    if json_file is not None:
        write_json(json_file, result)
    for table in tables(result):
        print_table(table)
        click.echo()


if __name__ == "__main__":
    main()
