"""Write the guides' tables from the result files that their markers name.

    python bench/guides.py            # after results have changed
    python bench/guides.py --check    # writes nothing; status 1 where a guide differs

A table is between `<!-- KIND: RESULT -->` and `<!-- /KIND -->`; RESULT is a path from the repository's root, and
what the kind needs besides.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fer_edge.bench.report import BenchReport
from fer_edge.bench.tables import cost_table, verdict_table
from fer_edge.cli.console import console
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, InputError
from fer_edge.core.files import read_json, write_atomic
from fer_edge.core.tables import Table

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ("README.md", "bench/README.md", "calibrate/README.md", "export/README.md", "export/litert.md")
TELLING = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # what INT8 arithmetic depends on
_ENGINE_PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert")
ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}


def filled(text: str) -> str:
    """Fill every table of a guide's text from its result file.

    Raises:
        InputError: a result file is missing or damaged, or a table has no end.
    """
    opening = rf"<!-- ({'|'.join(KINDS)}): (\S+)(?: (\S+))? -->\n"
    marked = re.compile(rf"({opening})(?:(?!<!-- ).)*(<!-- /\2 -->)", re.DOTALL)
    new, count = marked.subn(lambda found: found[1] + KINDS[found[2]](ROOT / found[3], found[4]) + found[5], text)
    if count != len(re.findall(opening, text)):
        raise InputError("a table begins and does not end; every <!-- KIND: RESULT --> wants its <!-- /KIND -->")
    return new


def bench(path: Path, shown: str | None) -> str:
    """Tabulate a bench JSON against FP32, all its variants or those of a list: ``fp32,int8@cpu``."""
    report = _shown(path, shown)
    device, packages = report.device, report.device["packages"]
    engines = ", ".join(f"{package} {packages[package]}" for package in _ENGINE_PACKAGES if package in packages)
    features = ", ".join(each for each in device["cpu_features"] if each in TELLING) or "no 8-bit dot products"
    return verdict_table(report).to_markdown().rstrip() + f"  \n{device['cpu']} ({features}), {engines}.\n"


def costs(path: Path, shown: str | None) -> str:
    """Tabulate the cost of the variants of a bench JSON by stage."""
    return cost_table(_shown(path, shown)).to_markdown()


USES = {
    "full": "the highest accuracy",
    "base": "best accuracy at low latency",
    "small": "the default choice on a small board",
    "nano": "when every kilobyte counts",
}


def shipped(path: Path, shown: str | None) -> str:
    """Tabulate what a user of the shipped bundles wants to know, one row a bundle."""
    report = _shown(path, shown)
    for each in report.variants:
        if each.accuracy is None or each.against_original is None or each.rss_peak_bytes is None:
            raise InputError(f"{path}: {each.bundle} has no accuracy, original or cold start; measure it with --data")
    return Table.of(
        report.variants,
        {
            "model": lambda each: f"`{each.bundle}`",
            "agrees with people": lambda each: _share(each.accuracy.crowd and each.accuracy.crowd.first_choice_top1),
            "FER2013 labels": lambda each: f"{each.accuracy.report.top1:.1%}",
            "face box to label": lambda each: f"{each.latency_ms['end_to_end'].p50:.2f} ms",
            "faster than `full` FP32": lambda each: f"{each.against_original.speedup_p50:.1f}x",
            "files": lambda each: f"{each.graph_bytes / 1e6:.1f} MB",
            "memory": lambda each: f"{each.rss_peak_bytes / 1e6:.0f} MB",
            "choose it for": lambda each: USES[each.bundle],
        },
    ).to_markdown()


def _share(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.1%}"


def _shown(path: Path, shown: str | None) -> BenchReport:
    report = BenchReport.read(path)
    if shown is None:
        return report
    wanted = set(shown.split(","))
    kept = tuple(each for each in report.variants if wanted & {each.name, f"{each.name}@{each.provider}"})
    return replace(report, variants=kept)


def qat(path: Path, name: str | None) -> str:
    """Tabulate a shipped bundle quantized after training beside its INT8 forms of a `fer-edge calibrate` JSON."""
    shipped, result = Bundle.open(name or "").manifest, read_json(path)
    rows = [
        (
            f"the bundle `{name}`: fp32" if variant.parent is None else f"{variant.name}, after training",
            variant.metrics["PublicTest"].top1_without_leaked,
            variant.how_made.get("gate"),
        )
        for variant in shipped.variants
    ]
    rows.append(("the run of `fer-edge qat`: fp32", result["parent"]["accuracy"]["top1_without_leaked"], None))
    rows += [
        (f"{form['name']}, trained so", form["accuracy"]["top1_without_leaked"], form["gate"])
        for form in result["forms"]
    ]
    paired = "PublicTest, T = 1, without leaked rows"

    def gate(key: str, form: str, sign: int) -> Callable[[tuple[Any, ...]], str | None]:
        return lambda row: row[2] and form.format(sign * row[2]["paired"][paired][key])

    return Table.of(
        rows,
        {
            "": lambda row: row[0],
            "PublicTest top-1, without leaked rows": lambda row: f"{row[1]:.2%}",
            "drop": gate("top1_delta", "{:+.2%}", -1),
            "flips": gate("flip_rate", "{:.2%}", 1),
        },
    ).to_markdown()


def live(folder: Path, _: str | None) -> str:
    """Tabulate the live path of every clip in a folder: who is followed, and the CPU time of a frame."""
    results = [read_json(path) for path in sorted(folder.glob("*.json"))]
    return Table.of(
        [each for each in results if each["what"] == "the live path"],
        {
            "clip": lambda each: each["clip"],
            "faces": lambda each: len(each["faces"]),
            "detector": lambda each: each["detector"].partition(":")[0],
            "frames": lambda each: f"{each['frames']:,}",
            "driver followed": lambda each: f"{each['driver_share']:.1%}",
            "identities": lambda each: each["tracks"],
            "find and follow, p50": lambda each: f"{each['cpu_ms']['follow']['p50']:.1f}",
            "whole frame, p50": lambda each: f"{each['cpu_ms']['total']['p50']:.1f}",
            "p99": lambda each: f"{each['cpu_ms']['total']['p99']:.1f}",
            "max": lambda each: f"{each['cpu_ms']['total']['max']:.1f}",
        },
    ).to_markdown()


def candidates(path: Path, _: str | None) -> str:
    """Tabulate ways to quantize, with the rows they were compared on and the choice."""
    result = read_json(path)
    rows, parent = result["rows"], result["parent"]
    taken = ", ".join(f"`{form}` takes **{name}**" for form, name in result["chosen"].items())
    lines = [
        f"`{result['bundle']['name']}`, {rows['n']:,} rows of {rows['split']} without leaked ones; FP32: top-1 "
        f"{parent['top1']:.2%}, ECE {parent['ece']:.4f}; agreement on",
        f"{rows['agreement']['size']:,} rows of {rows['agreement']['split']}. {taken}.",
        "",
    ]
    forms = {"top-1": "{top1:.2%}", "flips": "{flip_rate:.2%}", "p": "{mcnemar_p:.2f}", "ECE": "{ece:.4f}",
             "rise": "{ece_rise:+.4f}", "agreement": "{agreement:.1%}"}  # fmt: skip
    cells = [
        [each["name"], each["form"], *(form.format(**each) for form in forms.values())] for each in result["results"]
    ]
    return "\n".join(lines) + "\n" + Table(columns=("candidate", "form", *forms), rows=cells).to_markdown()


def litert(path: Path, _: str | None) -> str:
    """Tabulate LiteRT's integer kernels beside ONNX Runtime, variant by variant."""
    rows = [(each["bundle"], variant) for each in read_json(path)["bundles"] for variant in each["variants"]]

    def engines(value: Callable[[Any], str], *, names: tuple[str, ...]) -> Callable[[Any], str]:
        return lambda row: " : ".join(value(row[1]["engines"][name]) for name in names)

    def against(key: str, form: str) -> Callable[[Any], str]:
        return engines(
            lambda each: form.format(each["against_onnxruntime"]["fer2013"][key]), names=("xnnpack", "built-in")
        )

    return Table.of(
        rows,
        {
            "bundle": lambda row: f"`{row[0]}`",
            "variant": lambda row: f"`{row[1]['variant']}`",
            ".tflite, MB": lambda row: f"{sum(row[1]['tflite_bytes'].values()) / 1e6:.2f}",
            "top-1 without leaked rows, ONNX Runtime : XNNPACK : built-in": engines(
                lambda each: f"{each['top1_without_leaked']:.2%}", names=("onnxruntime", "xnnpack", "built-in")
            ),
            "flips, XNNPACK : built-in": against("flip_rate", "{:.2%}"),
            "largest logit difference": against("max_abs_logit_diff", "{:.2g}"),
            "RMS difference over the logits' spread": against("spread", "{:.1g}"),
        },
    ).to_markdown()


def relative(path: Path, shown: str | None) -> str:
    """Tabulate x of a bench JSON: a row a bundle, a column for each of a list such as ``int8@cpu,int8@litert``."""
    report, columns = BenchReport.read(path), (shown or "").split(",")
    found = {(each.bundle, f"{each.name}@{each.provider}"): each.x for each in report.variants}
    cells: dict[str, Callable[[str], str]] = {"x": lambda bundle: f"`{bundle}`"}
    for column in columns:
        name, _, provider = column.partition("@")
        cells[f"`{name}`, {ENGINES[provider]}"] = lambda bundle, column=column: f"{found[bundle, column]:.3f}"  # type: ignore[misc]
    return Table.of(list(dict.fromkeys(bundle for bundle, _ in found)), cells).to_markdown()


KINDS: dict[str, Callable[[Path, str | None], str]] = {
    "bench": bench,
    "costs": costs,
    "shipped": shipped,
    "live": live,
    "qat": qat,
    "candidates": candidates,
    "litert": litert,
    "x": relative,
}


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; status 1 where a guide differs.")
def main(check: bool) -> None:
    """Fill every guide."""
    stale = False
    for name in GUIDES:
        path = ROOT / name
        text = path.read_text("utf-8")
        try:
            new = filled(text)
            if new != text and not check:
                write_atomic(path, new.encode())
        except FerEdgeError as error:
            raise click.ClickException(f"{name}: {error}") from error
        if new != text:
            stale = True
            console.print(f"{name}: {'differs from its results' if check else 'written'}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
