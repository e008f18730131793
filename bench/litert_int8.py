"""Hold LiteRT's integer kernels against ONNX Runtime on the same scales, image by image.

    python bench/litert_int8.py full base small nano --data fer2013:PATH --json bench/results/DEVICE/litert-int8.json

ONNX Runtime computes most of `int8-trt` in floats between the rounding steps; TensorRT will compute it in integers.
LiteRT has two integer implementations of the same Q/DQ graph, with the same scales and the same integer weights:

- ``xnnpack``: what the provider `litert` runs;
- ``built-in``: LiteRT's own kernels, without XNNPACK, whose rescaling is in fixed-point numbers.

Every row of the choosing split is computed at T = 1, by every head, and compared with ONNX Runtime's logits before
temperature, and with the bundle's FP32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.bench.accuracy import labelled_rows
from fer_edge.cli.console import progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.files import write_json
from fer_edge.core.json import encode
from fer_edge.core.labels import Reading
from fer_edge.core.metrics import paired_report, softmax
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Array
from fer_edge.data import load_dataset
from fer_edge.export.litert_cache import write_missing
from fer_edge.runtime import Network
from fer_edge.runtime.litert_session import find_litert
from fer_edge.runtime.providers import default_engine_folder

ENGINES = ("onnxruntime", "xnnpack", "built-in")
_AT_ONCE = 64

Run = Callable[[Array], dict[Reading, Array]]


@contextmanager
def networks(bundle: Bundle, variant: str, provider: str) -> Iterator[Run]:
    """Open a variant's encoder with every head; faces uint8 (N, S, S) to logits float32 (N, C) by head."""
    opened = {
        reading: Network.open(bundle, variant=variant, provider=provider, reading=reading)
        for reading in bundle.variant(variant).readings
    }

    def run(frames: Array) -> dict[Reading, Array]:
        features = opened["fer2013"].encode(frames)[:, None]
        return {name: each.logits(features, np.ones(len(frames), np.int64)) for name, each in opened.items()}

    try:
        yield run
    finally:
        for network in opened.values():
            network.close()


@contextmanager
def built_in(bundle: Bundle, variant: str) -> Iterator[Run]:
    """Run the same LiteRT files without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def runner(sha256: str, signature: str) -> Any:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        content = find_litert(default_engine_folder(), graph_sha256=sha256)
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=resolver)
        return interpreter.get_signature_runner(signature)

    chosen = bundle.variant(variant)
    encoder = runner(chosen.encoder.sha256, "encode")
    heads = {reading: runner(chosen.head_graph(reading).sha256, "frame") for reading in chosen.readings}

    def run(frames: Array) -> dict[Reading, Array]:
        rows: dict[Reading, list[Array]] = {reading: [] for reading in heads}
        for frame in frames:
            features = encoder(frames=frame[None])["features"][:, None]
            for reading, head in heads.items():
                rows[reading].append(head(features=features, length=np.ones(1, np.int64))["logits"])
        return {reading: np.concatenate(found) for reading, found in rows.items()}

    yield run


def all_logits(bundle: Bundle, variant: str, engine: str, frames: Array) -> dict[Reading, Array]:
    """Compute the logits of every frame by every head."""
    provider = {"onnxruntime": "cpu", "xnnpack": "litert"}.get(engine)
    found: list[dict[Reading, Array]] = []
    opened = built_in(bundle, variant) if provider is None else networks(bundle, variant, provider)
    with opened as run, progress(f"{bundle.manifest.name} {variant} in {engine}") as bar:
        for start in range(0, len(frames), _AT_ONCE):
            found.append(run(frames[start : start + _AT_ONCE]))
            bar(f"{bundle.manifest.name} {variant} in {engine}", start, len(frames))
    return {reading: np.concatenate([each[reading] for each in found]) for reading in found[0]}


def compared(reference: Array, other: Array) -> dict[str, Any]:
    """Compare two computations of the same logits."""
    difference = other.astype(np.float64) - reference
    flips = reference.argmax(axis=1) != other.argmax(axis=1)
    return {
        "flips": int(flips.sum()),
        "flip_rate": float(flips.mean()),
        "max_abs_logit_diff": float(np.abs(difference).max()),
        "mean_abs_logit_diff": float(np.abs(difference).mean()),
        "spread": float(np.sqrt((difference**2).mean()) / reference.std()),
    }


def variant_result(
    bundle: Bundle, variant: str, rows: Any, frames: Array, floats: dict[Reading, Array]
) -> tuple[dict[str, Any], dict[Reading, Array]]:
    """Measure one variant in every engine."""
    write_missing(bundle, [variant])
    chosen = bundle.variant(variant)
    files = {
        part: len(find_litert(default_engine_folder(), graph_sha256=file.sha256)) for part, file in chosen.parts.items()
    }
    logits = {engine: all_logits(bundle, variant, engine, frames) for engine in ENGINES}
    floats = floats or logits["onnxruntime"]
    engines: dict[str, Any] = {}
    for engine, found in logits.items():
        own = found["fer2013"]
        right = own.argmax(axis=1) == rows.labels
        paired = paired_report(softmax(floats["fer2013"]), softmax(own), rows.labels)
        engines[engine] = {
            "top1": float(right.mean()),
            "top1_without_leaked": None if rows.leaked is None else float(right[~rows.leaked].mean()),
            "against_fp32_in_onnxruntime": encode(paired),
            "against_onnxruntime": {
                reading: compared(logits["onnxruntime"][reading], values) for reading, values in found.items()
            },
        }
    return {
        "variant": variant,
        "onnx_bytes": {part: file.size_bytes for part, file in chosen.parts.items()},
        "tflite_bytes": files,
        "engines": engines,
    }, floats


def table(results: list[dict[str, Any]]) -> Table:
    """Tabulate the variants in LiteRT beside ONNX Runtime."""
    rows = [
        (each, variant, engine, values)
        for each in results
        for variant in each["variants"]
        for engine, values in variant["engines"].items()
    ]

    def against(key: str, form: str) -> Callable[[Any], str]:
        def cell(row: Any) -> str:
            return "" if row[2] == "onnxruntime" else form.format(row[3]["against_onnxruntime"]["fer2013"][key])

        return cell

    return Table.of(
        rows,
        {
            "bundle": lambda row: row[0]["bundle"],
            "variant": lambda row: row[1]["variant"],
            "engine": lambda row: row[2],
            "top-1": lambda row: f"{row[3]['top1']:.2%}",
            "without leaked rows": lambda row: f"{row[3]['top1_without_leaked']:.2%}",
            "flips": against("flip_rate", "{:.2%}"),
            "largest logit difference": against("max_abs_logit_diff", "{:.2g}"),
            "spread": against("spread", "{:.2g}"),
        },
    )


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--data", required=True, metavar="SPEC", help="The data set to measure on.")
@click.option("--variant", "variants", multiple=True, help="Only this variant; repeatable.")
@json_option
@report_errors
def main(bundles: tuple[str, ...], data: str, variants: tuple[str, ...], json_file: Path | None) -> None:
    """Compare every variant of BUNDLES in LiteRT with ONNX Runtime."""
    head = result_head("LiteRT's integer kernels beside ONNX Runtime")
    rows = labelled_rows(load_dataset(data), "choose")
    results = []
    for name in bundles:
        bundle = Bundle.open(name)
        frames = prepare_stills(rows.images, bundle.manifest.preprocess)
        floats: dict[Reading, Array] = {}
        found = []
        for variant in bundle.manifest.variants:
            if variants and variant.name not in variants:
                continue
            measured, floats = variant_result(bundle, variant.name, rows, frames, floats)
            found.append(measured)
        results.append({"bundle": bundle.manifest.name, "sha256": bundle.sha256, "variants": found})
    if json_file is not None:
        write_json(json_file, {**head, "data": encode(rows.read), "bundles": results})
    print_table(table(results))


if __name__ == "__main__":
    main()
