"""The benchmark as one self-contained HTML page: tables, and plots as inline SVG."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from fer_edge.bench.report import BenchReport, VariantResult
from fer_edge.bench.tables import cost_table, verdict_table
from fer_edge.core.files import write_atomic
from fer_edge.core.plots import (
    GREY,
    PALETTE,
    draw_labels,
    new_figure,
    plot_bytes,
    series_colours,
    set_log_x,
)
from fer_edge.core.tables import Table, megabytes, percent, points

__all__ = ["html_page", "render_page", "write_page"]

_PLOTS: Final = "the benchmark's plots"
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin-bottom: 0.3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; } .note { color: #555; white-space: pre-line; }
code { background: #f2f2f2; padding: 0 0.2rem; } .facts td { text-align: left; white-space: normal; }
.warning { border-left: 4px solid #c60; padding: 0.4rem 0.8rem; background: #fff6ec; }
svg { max-width: 100%; height: auto; }
"""


def write_page(report: BenchReport, path: str | os.PathLike[str]) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written; an earlier file is unchanged.
        MissingPackageError: matplotlib is not installed.
    """
    write_atomic(Path(path), render_page(report).encode())


def render_page(report: BenchReport) -> str:
    """Render the page; it loads no other file.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    parts = [
        "<h1>fer-edge bench</h1>",
        _how_measured(report),
        "<h2>Against the FP32 original</h2>",
        verdict_table(report).to_html(),
        "<h2>Time and memory</h2>",
        _latency_plot(report),
        cost_table(report).to_html(),
    ]
    if any(result.accuracy for result in report.variants):
        parts += [
            "<h2>Accuracy and time</h2>",
            _accuracy_plot(report),
        ]
    parts += ["<h2>Each variant</h2>", *(_variant(result) for result in report.variants)]
    return html_page("fer-edge bench", parts)


def html_page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """Return an HTML document of the given parts, in the style of the benchmark's page and `style`."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _how_measured(report: BenchReport) -> str:
    device, timing, reference = report.device, report.timing, report.reference
    accuracy_on = "recorded in the manifests, not measured now"
    if (read := report.data) is not None:
        accuracy_on = f"{read.source} {read.split}, {read.n} images, sha256 {read.split_sha256[:12]}…"
    facts = {
        "measured": report.created,
        "command": report.command or "called from Python",
        "processor": f"{device.get('cpu')}, {device.get('cores')} cores",
        "GPU": str(device.get("gpu") or "none"),
        "system": f"{device.get('os')}, Python {device.get('python')}",
        "packages": ", ".join(f"{name} {version}" for name, version in dict(device.get("packages") or {}).items()),
        "load at start": str(device.get("load_at_start")),
        "timing": f"{timing.rounds} rounds of {timing.per_round}, interleaved, {timing.warm_up} warm-up, none left out",
        "reference CNN": f"{reference.latency_ms.p50:.3f} ms (p50), {reference.provider_version}, "
        f"{reference.latency_ms.threads} thread(s)",
        "original": report.original or "none given; each variant is compared with its own bundle's FP32",
        "accuracy on": accuracy_on,
    }
    rows = "".join(f"<tr><td>{name}</td><td>{html.escape(text)}</td></tr>" for name, text in facts.items())
    return f'<table class="facts">{rows}</table>{_load_warning(device)}'


def _load_warning(device: Mapping[str, Any]) -> str:
    load, cores = device.get("load_at_start"), device.get("cores")
    if not isinstance(load, (int, float)) or not isinstance(cores, int) or load < 0.5 * cores:
        return ""
    return (
        f'<p class="warning">The machine was busy at the start (load {load} on {cores} cores). Use the '
        "ratios: all variants were timed interleaved. The milliseconds, their tails above all, are longer than on an "
        "idle machine.</p>"
    )


def _variant(result: VariantResult) -> str:
    title = f"{result.bundle}/{result.name} on {result.provider_version}"
    facts = [
        f"{result.precision}, {result.parameters:,} parameters",
        "multiply-accumulates unknown" if result.macs is None else f"{result.macs / 1e6:.1f} M multiply-accumulates",
        f"{megabytes(result.graph_bytes)} MB",
        f"{result.throughput_fps.fps:.0f} faces/s at batch {result.throughput_fps.batch}",
        f"x {result.x:.3f} (quartiles {' to '.join(f'{quartile:.3f}' for quartile in result.x_quartiles)})",
        f"streaming step {result.streaming_ratio:.2f} times the encoder",
    ]
    columns = ("ms", "p50", "p90", "p99", "p99.9", "mean", "min", "max", "n", "batch", "T", "threads")
    rows = [
        (
            name.replace("_", " "),
            *(f"{value:.3f}" for value in (each.p50, each.p90, each.p99, each.p99_9, each.mean, each.min, each.max)),
            str(each.n),
            str(each.batch),
            None if each.t is None else str(each.t),
            str(each.threads),
        )
        for name, each in result.latency_ms.items()
    ]
    parts = [
        f"<h3>{html.escape(title)}</h3>",
        f"<p>{html.escape(', '.join(facts))}<br>bundle sha256 <code>{result.sha256}</code></p>",
        Table(columns=columns, rows=rows).to_html(),
        _accuracy(result),
        _own(result),
    ]
    return "".join(parts)


def _accuracy(result: VariantResult) -> str:
    if result.accuracy is None:
        return ""
    report = result.accuracy.report
    parts = [f"{report.dataset} {report.split}, {report.n} rows: top-1 {percent(report.top1)} %"]
    if report.top1_without_leaked is not None:
        unleaked = f"{percent(report.top1_without_leaked)} % on the {report.n_without_leaked} rows"
        parts[0] += f" ({unleaked} that are not in Training)"
    parts += [f"macro-F1 {percent(report.macro_f1)} %", f"expected calibration error {percent(report.ece)} %"]
    recorded = "; recorded in the manifest" if result.accuracy.recorded else ""
    return f"<p>{html.escape(', '.join(parts))}{recorded}.</p>"


def _own(result: VariantResult) -> str:
    own = result.against_own_fp32
    if own is None or result.precision == "fp32":
        return ""
    parts = [
        f"Against its own FP32: {own.speedup_p50:.2f} times as fast (encoder {own.encoder_speedup_p50:.2f})",
        f"{own.size_ratio:.2f} times smaller, largest logit difference {own.max_abs_logit_diff:.3f}",
    ]
    if own.top1_delta is not None:
        parts.append(f"top-1 {points(own.top1_delta)} points")
    if own.flip_rate is not None and own.mcnemar_p is not None:
        parts.append(f"{percent(own.flip_rate)} % of the labels changed, McNemar p = {own.mcnemar_p:.3g}")
    return f"<p>{html.escape(', '.join(parts))}.</p>"


def _latency_plot(report: BenchReport) -> str:
    """Draw encoder and head at T = 1 as stacked bars, with the p99 of both together as a tick."""
    results = report.variants
    rows = range(len(results))
    with new_figure(9, 1.6 + 0.4 * len(results), what=_PLOTS) as figure:
        axes = figure.add_subplot()
        encoder = [result.latency_ms["encoder"].p50 for result in results]
        head = [result.latency_ms["head"].p50 for result in results]
        axes.barh(rows, encoder, color=PALETTE[0], label="encoder, p50")
        axes.barh(rows, head, left=encoder, color=PALETTE[1], label="head (T = 1), p50")
        tails = [result.latency_ms["frame"].p99 for result in results]
        axes.plot(tails, list(rows), "|", color="black", markersize=14, label="both, p99")
        axes.axvline(report.reference.latency_ms.p50, color=GREY, linestyle=":", label="reference CNN, p50 (x = 1)")
        axes.set_yticks(list(rows), [_name(result) for result in results])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ms, batch 1, {results[0].threads} thread(s)")
        axes.legend(loc="best")
        return plot_bytes(figure, "svg").decode()


def _accuracy_plot(report: BenchReport) -> str:
    """Draw top-1 over x, a point for each variant with an accuracy."""
    found = {_name(each): (each, 100 * each.accuracy.report.top1) for each in report.variants if each.accuracy}
    colours = series_colours(name for name in dict.fromkeys(each.name for each, _ in found.values()))
    with new_figure(9, 4, what=_PLOTS) as figure:
        axes = figure.add_subplot()
        for result, top1 in found.values():
            axes.plot([result.x], [top1], "o", color=colours[result.name])
        set_log_x(axes, [result.x for result, _ in found.values()])
        axes.set_xlabel("x: time over the reference CNN's, log scale (left is faster)")
        axes.set_ylabel("top-1 %")
        axes.margins(y=0.25)
        draw_labels(axes, [(name, result.x, top1, colours[result.name]) for name, (result, top1) in found.items()])
        return plot_bytes(figure, "svg").decode()


def _name(result: VariantResult) -> str:
    return f"{result.bundle}/{result.name}" + ("" if result.provider == "cpu" else f" {result.provider}")
