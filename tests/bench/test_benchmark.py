"""A whole run on tiny bundles: the JSON's keys, the accuracies, the comparisons, the log."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_crowd_bundle, tiny_manifest

from fer_edge.bench import BenchOptions, BenchReport, Timing, run_bench
from fer_edge.bench.accuracy import record_accuracies, synthetic_rows
from fer_edge.bench.latency import Probe, Samples
from fer_edge.bench.tables import verdict_table
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import create_bundle, update_bundle
from fer_edge.core.crowd import crowd_accuracy
from fer_edge.core.errors import BundleError, InputError, OutputError, SessionError
from fer_edge.core.evaluate import evaluate
from fer_edge.core.metrics import accuracy_report, paired_report, softmax
from fer_edge.data import Dataset, load_dataset
from fer_edge.data.negatives import NEGATIVES, UNTRAINED_NEGATIVES
from fer_edge.runtime.inference import Network

from .conftest import LEAKED, ROWS, make_bundle

# The keys that other programs rely on, with their types; there may be more of them.
NUMBER = (int, float)
PERCENTILES = dict.fromkeys(("p50", "p90", "p99", "p99.9", "mean", "min", "max"), NUMBER) | {"n": int}
STATED = {"batch": int, "t": (int, type(None)), "threads": int}
ACCURACY = {
    "dataset": str, "split": str, "n": int, "top1": NUMBER, "macro_f1": NUMBER, "per_class": dict, "ece": NUMBER,
    "top1_without_leaked": NUMBER, "recorded": bool,
}  # fmt: skip
VARIANT = {
    "bundle": str, "sha256": str, "name": str, "precision": str, "provider": str, "provider_version": str,
    "threads": int, "batch": int, "window": int, "graph_bytes": int, "parameters": int, "macs": (int, type(None)),
    "x": NUMBER, "rss_peak_bytes": int,
}  # fmt: skip
DEVICE = {
    "cpu": str, "cores": int, "gpu": (str, type(None)), "os": str, "python": str, "packages": dict,
    "load_at_start": NUMBER,
}  # fmt: skip
OWN = ("speedup_p50", "size_ratio", "top1_delta", "flip_rate", "mcnemar_p", "max_abs_logit_diff")


def check_keys(value: dict[str, object], expected: dict[str, object]) -> None:
    for key, kind in expected.items():
        assert key in value, f"missing: {key}"
        assert isinstance(value[key], kind), f"{key} is {value[key]!r}"  # type: ignore[arg-type]


def test_the_json_has_every_key_of_the_schema(bundle: Bundle, dataset: Dataset, brief: Timing) -> None:
    timing = dataclasses.replace(brief, cold_starts=1, idle_s=0.01, idle_repeats=2)
    report = run_bench([bundle], data=dataset, options=BenchOptions(original=bundle, timing=timing))
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["schema"] == 1
    check_keys(value["device"], DEVICE)
    assert [variant["name"] for variant in value["variants"]] == ["fp32", "int8"]
    for variant in value["variants"]:
        check_keys(variant, VARIANT)
        assert {"preprocess", "encoder", "head", "end_to_end", "cold_start", "after_idle"} <= set(variant["latency_ms"])
        for latency in variant["latency_ms"].values():
            check_keys(latency, PERCENTILES | STATED)
            assert latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
        check_keys(variant["throughput_fps"], {"batch": int, "fps": NUMBER})
        check_keys(variant["accuracy"], ACCURACY)
        check_keys(variant["against_own_fp32"], dict.fromkeys(OWN, NUMBER))
        check_keys(variant["against_original"], dict.fromkeys(OWN[:3], NUMBER))
    assert BenchReport.from_json(value) == report


def test_times_are_in_milliseconds_and_every_sample_counts(bundle: Bundle, brief: Timing) -> None:
    report = run_bench([bundle], options=BenchOptions(timing=brief, window=9))
    for variant in report.variants:
        latency = variant.latency_ms
        assert {each.n for each in latency.values()} == {brief.rounds * brief.per_round}
        assert all(1e-4 < each.p50 < 1e3 for each in latency.values())
        assert {name: each.t for name, each in latency.items()} == {
            "preprocess": None, "encoder": None, "head": 1, "head_window": 9, "frame": 1, "streaming_step": 9,
            "end_to_end": 1,
        }  # fmt: skip
        assert variant.window == 9
        assert latency["frame"].min >= latency["encoder"].min
        assert 0 < variant.x_quartiles[0] <= variant.x <= variant.x_quartiles[1]
        assert variant.rss_peak_bytes is None
        assert variant.throughput_fps.batch == brief.batch
    assert report.reference.latency_ms.p50 > 0


def test_every_ratio_is_made_of_the_right_times(bundle: Bundle, brief: Timing, monkeypatch: pytest.MonkeyPatch) -> None:
    costs_us = {"reference": 1000, "encoder": 400, "head": 100, "head_window": 200, "preprocess": 7, "end_to_end": 600}

    def invented(probes: Sequence[Probe], *, rounds: int, **_: object) -> dict[str, Samples]:
        """Times by stage; the second variant is four times as fast, a batch of three takes 1.5 ms."""
        times = {}
        for probe in probes:
            speed = 4 if "int8" in probe.name else 1
            shape = (rounds, probe.per_round)
            times[probe.name] = Samples(
                stages={
                    stage: np.full(shape, 1000 * (1500 if stage == "batch" else costs_us[stage]) // speed)
                    for stage in probe.stages
                }
            )
        return times

    monkeypatch.setattr("fer_edge.bench.benchmark.measure_interleaved", invented)
    fp32, int8 = run_bench([bundle], options=BenchOptions(original=bundle, timing=brief)).variants
    assert (fp32.x, int8.x) == (0.5, 0.125)
    assert fp32.streaming_ratio == int8.streaming_ratio == 600 / 400
    assert {name: each.p50 for name, each in fp32.latency_ms.items()} == {
        "preprocess": 0.007, "encoder": 0.4, "head": 0.1, "head_window": 0.2, "frame": 0.5, "streaming_step": 0.6,
        "end_to_end": 0.6,
    }  # fmt: skip
    assert fp32.throughput_fps.fps == pytest.approx(3 / 1.5e-3)
    assert int8.against_own_fp32 is not None
    assert (int8.against_own_fp32.speedup_p50, int8.against_own_fp32.encoder_speedup_p50) == (4.0, 4.0)
    assert int8.against_original is not None
    assert int8.against_original.speedup_p50 == 4.0


def test_accuracies_and_comparisons_are_those_of_the_metrics(bundle: Bundle, dataset: Dataset, brief: Timing) -> None:
    report = run_bench([bundle], data=dataset, options=BenchOptions(timing=brief))
    split = dataset.split("choose")
    leaked = np.arange(ROWS) < LEAKED
    probabilities, logits = {}, {}
    for name in ("fp32", "int8"):
        with Network.open(bundle, variant=name) as network:
            features = network.encode(split.images)[:, None]
            length = np.ones(ROWS, np.int64)
            logits[name] = network.logits(features, length)
            probabilities[name] = network.probabilities(features, length)
    for result in report.variants:
        expected = accuracy_report(
            probabilities[result.name], split.labels, dataset="fer2013", split="PublicTest", leaked=leaked
        )
        assert result.accuracy is not None
        assert result.accuracy.report == expected
        assert result.accuracy.report.n_without_leaked == ROWS - LEAKED
        assert not result.accuracy.recorded
    fp32, int8 = report.variants
    paired = paired_report(probabilities["fp32"], probabilities["int8"], split.labels)
    own = int8.against_own_fp32
    assert own is not None
    assert own.flip_rate == paired.flip_rate > 0
    assert (own.mcnemar_p, own.top1_delta, own.ece_delta) == (paired.mcnemar_p, paired.top1_delta, paired.ece_delta)
    assert own.max_abs_logit_diff == pytest.approx(np.abs(logits["int8"] - logits["fp32"]).max(), rel=1e-5)
    assert own.size_ratio == fp32.graph_bytes / int8.graph_bytes
    assert own.speedup_p50 == pytest.approx(fp32.latency_ms["frame"].p50 / int8.latency_ms["frame"].p50)
    assert int8.against_original is None
    assert report.data is not None
    assert (report.data.split, report.data.split_sha256, report.data.n) == ("PublicTest", split.sha256, ROWS)


def test_without_data_the_recorded_accuracy_is_stated_and_marked(tmp_path: Path, brief: Timing) -> None:
    rows = np.eye(7)[np.arange(14) % 7]
    good = accuracy_report(rows, np.arange(14) % 7, dataset="fer2013", split="PublicTest")
    bad = accuracy_report(rows, np.zeros(14, int), dataset="fer2013", split="PublicTest")
    plain = make_bundle(tmp_path / "bundle")
    fp32, int8 = plain.manifest.variants
    manifest = plain.manifest.with_variant(dataclasses.replace(fp32, metrics={"PublicTest": good}))
    manifest = manifest.with_variant(dataclasses.replace(int8, metrics={"PublicTest": bad}))
    report = run_bench([update_bundle(plain, manifest)], options=BenchOptions(timing=brief))
    stated = [result.accuracy for result in report.variants]
    assert [each.report for each in stated if each] == [good, bad]
    assert all(each.recorded for each in stated if each)
    own = report.variants[1].against_own_fp32
    assert own is not None
    assert own.top1_delta == pytest.approx(bad.top1 - good.top1)
    assert (own.flip_rate, own.mcnemar_p, own.ece_delta) == (None, None, None)
    assert own.max_abs_logit_diff > 0
    assert report.data is None
    assert report.logits_on == synthetic_rows().description
    no_private = run_bench([plain.open(plain.path)], options=BenchOptions(timing=brief, split="report"))
    assert [result.accuracy for result in no_private.variants] == [None, None]


def test_every_look_at_private_test_is_logged(
    bundle: Bundle, dataset: Dataset, brief: Timing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--private-log"):
        run_bench([bundle], data=dataset, options=BenchOptions(split="report", timing=brief))
    log = tmp_path / "log.jsonl"
    report = run_bench([bundle], data=dataset, options=BenchOptions(split="report", timing=brief, private_log=log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["variant"] for line in lines] == ["fp32", "int8"]
    for line, result in zip(lines, report.variants, strict=True):
        assert result.accuracy is not None
        assert line["result"] == result.accuracy.report.to_json()
        assert line["result"]["split"] == "PrivateTest"
        assert (line["bundle"], line["sha256"]) == ("tiny", bundle.sha256)
        assert line["graphs"] == [file.sha256 for file in bundle.variant(line["variant"]).graphs]
        assert line["date"]
        assert line["commit"] is None
    run_bench([bundle], data=dataset, options=BenchOptions(timing=brief, private_log=log))
    assert len(log.read_text().splitlines()) == 2, "PublicTest is no look at PrivateTest"


def test_no_look_when_the_log_cannot_be_written(
    bundle: Bundle, dataset: Dataset, brief: Timing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_edge.bench.benchmark.evaluate", lambda *_, **__: pytest.fail("evaluated all the same"))
    with pytest.raises(OutputError, match="cannot write"):
        run_bench([bundle], data=dataset, options=BenchOptions(split="report", timing=brief, private_log=tmp_path))


def test_measured_accuracies_go_into_the_manifest_on_demand(bundle: Bundle, dataset: Dataset, brief: Timing) -> None:
    report = run_bench([bundle], data=dataset, options=BenchOptions(timing=brief))
    updated = record_accuracies(bundle, report)
    for result in report.variants:
        assert result.accuracy is not None
        assert Bundle.open(updated.path).variant(result.name).metrics == {"PublicTest": result.accuracy.report}
    with pytest.raises(InputError, match="give --data"):
        record_accuracies(updated, run_bench([updated], options=BenchOptions(timing=brief)))


def test_the_original_is_measured_beside_the_rest(bundle: Bundle, tmp_path: Path, brief: Timing) -> None:
    original = make_bundle(tmp_path / "original", head_seed=5)
    report = run_bench([bundle], options=BenchOptions(original=original, variants=["int8"], timing=brief))
    assert [(each.sha256, each.name) for each in report.variants] == [
        (bundle.sha256, "int8"),
        (original.sha256, "fp32"),
    ]
    variant, reference = report.variants
    assert report.original == "tiny/fp32"
    assert variant.against_own_fp32 is None, "its own FP32 was not asked for"
    assert variant.against_original is not None
    expected = reference.latency_ms["frame"].p50 / variant.latency_ms["frame"].p50
    assert variant.against_original.speedup_p50 == pytest.approx(expected)
    assert reference.against_original is not None
    assert reference.against_original.speedup_p50 == 1.0


def test_each_provider_is_compared_with_itself(bundle: Bundle, brief: Timing) -> None:
    pytest.importorskip("openvino")
    report = run_bench([bundle], options=BenchOptions(providers=["cpu", "openvino"], timing=brief))
    assert [(each.provider, each.name) for each in report.variants] == [
        ("cpu", "fp32"),
        ("cpu", "int8"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
    ]
    assert report.variants[2].provider_version.startswith("openvino")
    fp32, int8 = report.variants[2:]
    assert int8.against_own_fp32 is not None
    expected = fp32.latency_ms["frame"].p50 / int8.latency_ms["frame"].p50
    assert int8.against_own_fp32.speedup_p50 == pytest.approx(expected)


def test_what_cannot_be_measured_is_refused(bundle: Bundle, tmp_path: Path, brief: Timing) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        run_bench([], options=BenchOptions(timing=brief))
    with pytest.raises(InputError, match="got 'int4', expected one of fp32, int8"):
        run_bench([bundle], options=BenchOptions(variants=["int4"], timing=brief))
    with pytest.raises(InputError, match="got 'abacus', expected one of cpu"):
        run_bench([bundle], options=BenchOptions(providers=["abacus"], timing=brief))
    int8 = bundle.variant("int8")
    graphs = {file.sha256: bundle.read_graph(file) for file in int8.graphs}
    lone = create_bundle(tmp_path / "lone", tiny_manifest(dataclasses.replace(int8, parent=None)), graphs)
    with pytest.raises(InputError, match="expected one in FP32"):
        run_bench([bundle], options=BenchOptions(original=lone, timing=brief))
    with pytest.raises(InputError, match="rounds"):
        Timing(rounds=0)


def test_a_damaged_graph_is_named(tmp_path: Path, brief: Timing) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    file = bundle.path / "graphs" / f"{bundle.variant('int8').head.sha256}.onnx"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        run_bench([bundle], options=BenchOptions(timing=brief))


def test_neither_torch_nor_onnx_is_needed(bundle: Bundle) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'nncf', 'matplotlib', 'pyarrow'): sys.modules[name] = None\n"
        "from fer_edge.bench import BenchOptions, Timing, run_bench\n"
        "from fer_edge.core.bundle import Bundle\n"
        "timing = Timing(rounds=1, per_round=1, warm_up=0, batch=1, cold_starts=0)\n"
        "print(len(run_bench([Bundle.open(sys.argv[1])], options=BenchOptions(timing=timing)).variants))"
    )
    command = [sys.executable, "-c", program, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr


def test_an_engine_that_fails_stops_the_run(bundle: Bundle, brief: Timing, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SessionError("the engine burst")

    monkeypatch.setattr(Network, "logits", fail)
    with pytest.raises(SessionError, match="burst"):
        run_bench([bundle], options=BenchOptions(timing=brief))


@pytest.mark.data
def test_fer2013_is_measured_with_and_without_its_leaked_rows(
    bundle: Bundle, brief: Timing, fer2013_path: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(f"fer2013:{fer2013_path}")
    log = tmp_path / "log.jsonl"
    for split, name, unleaked in (("choose", "PublicTest", 3309), ("report", "PrivateTest", 3301)):
        report = run_bench(
            [bundle], data=dataset, options=BenchOptions(split=split, variants=["fp32"], timing=brief, private_log=log)
        )
        (result,) = report.variants
        assert result.accuracy is not None
        stated = result.accuracy.report
        assert (stated.split, stated.n, stated.n_without_leaked) == (name, 3589, unleaked)
        assert len(stated.per_class) == 7
    assert len(log.read_text().splitlines()) == 1


def test_the_crowd_is_measured_where_bundle_and_data_have_it(tmp_path: Path, dataset: Dataset, brief: Timing) -> None:
    votes = np.zeros((ROWS, 10), np.uint8)
    votes[:, 1], votes[:, 8] = 9, 1  # happy, unknown
    split = dataclasses.replace(dataset.splits["PublicTest"], votes=votes)
    voted = dataclasses.replace(dataset, splits={**dataset.splits, "PublicTest": split})
    both = tiny_crowd_bundle(tmp_path / "both", not_judgeable_threshold=0.5, temperature=2.0)
    report = run_bench([both], data=voted, options=BenchOptions(timing=brief))
    (result,) = report.variants
    assert result.accuracy is not None
    crowd = result.accuracy.crowd
    assert crowd is not None
    with Network.open(both, reading="crowd") as network:
        logits = evaluate(network, split.images, both.manifest.preprocess).by_window[1]
    expected = crowd_accuracy(softmax(logits, temperature=2.0), votes, threshold=0.5)
    assert dataclasses.replace(crowd, not_judgeable=expected.not_judgeable) == expected
    assert set(crowd.not_judgeable.negatives) == set(NEGATIVES)
    assert crowd.not_judgeable.untrained == UNTRAINED_NEGATIVES
    assert BenchReport.from_json(report.to_json()) == report
    assert {"crowd %", "majority %"} <= set(verdict_table(report).headings)
    recorded = record_accuracies(both, report).variant("fp32")
    assert recorded.crowd is not None
    assert recorded.crowd.metrics["PublicTest"] == crowd
    stated = run_bench([Bundle.open(both.path)], options=BenchOptions(timing=brief)).variants[0].accuracy
    assert stated is not None
    assert stated.crowd == crowd
    assert stated.recorded
