"""Writes the guides' tables anew, from the result files that their markers name.

    python bench/guides.py            # after results have changed
    python bench/guides.py --check    # writes nothing; status 1 where a guide says otherwise

A table stands between `<!-- KIND: RESULT -->` and `<!-- /KIND -->`; RESULT is a path from the repository's root, and
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

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ("README.md", "bench/README.md", "calibrate/README.md", "export/README.md")
TELLING = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # what INT8 arithmetic depends on
ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}


def filled(text: str) -> str:
    """A guide's text with every table as its result file has it.

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
    """The verdicts of a bench JSON, of all its variants or those of a list: ``fp32,int8@cpu``."""
    report = _shown(path, shown)
    device, packages = report.device, report.device["packages"]
    engines = ", ".join(f"{package} {packages[package]}" for package in ("onnxruntime", "openvino"))
    features = ", ".join(each for each in device["cpu_features"] if each in TELLING) or "no 8-bit dot products"
    return verdict_table(report).to_markdown().rstrip() + f"  \n{device['cpu']} ({features}), {engines}.\n"


def costs(path: Path, shown: str | None) -> str:
    """What the variants of a bench JSON cost, stage by stage."""
    return cost_table(_shown(path, shown)).to_markdown()


def _shown(path: Path, shown: str | None) -> BenchReport:
    report = BenchReport.read(path)
    if shown is None:
        return report
    wanted = set(shown.split(","))
    kept = tuple(each for each in report.variants if wanted & {each.name, f"{each.name}@{each.provider}"})
    return replace(report, variants=kept)


def qat(path: Path, name: str | None) -> str:
    """A shipped bundle quantized after training, and the training of its INT8 forms in a `fer-edge calibrate` JSON."""
    rows = []
    shipped = Bundle.open(name or "").manifest
    for variant in shipped.variants:
        top1 = variant.metrics["PublicTest"].top1_without_leaked
        made = f"the bundle `{name}`: fp32" if variant.parent is None else f"{variant.name}, after training"
        rows.append((made, top1, variant.how_made.get("gate")))
    result = read_json(path)
    parent = result["parent"]["accuracy"]["top1_without_leaked"]
    rows.append(("the run of `fer-edge qat`: fp32", parent, None))
    rows += [
        (f"{form['name']}, trained so", form["accuracy"]["top1_without_leaked"], form["gate"])
        for form in result["forms"]
    ]
    cells = []
    for made, top1, gate in rows:
        said = gate and gate["paired"]["PublicTest, T = 1, without leaked rows"]
        figures = (f"{-said['top1_delta']:+.2%}", f"{said['flip_rate']:.2%}") if said else ("–", "–")
        cells.append((made, f"{top1:.2%}", *figures))
    return _table(("", "PublicTest top-1, without leaked rows", "drop", "flips"), cells, figures=3)


def pruning(path: Path, measure: str | None) -> str:
    """One measure of a pruning curve."""
    from pruning_curve import table  # beside this file

    return "".join(f"{line}\n" for line in table(read_json(path), measure))


def lstm_forms(path: Path, _: str | None) -> str:
    """The forms of the LSTM in time, over the loop's."""
    rows = []
    for row in read_json(path)["rows"]:
        forms = row["forms"].values()
        ratios = " : ".join(f"{each['over_loop']['median']:.2f} ({each['over_loop_min']:.2f})" for each in forms)
        rows.append((ENGINES[row["provider"]], f"`{row['variant']}`", row["part"], ratios))
    return _table(("engine", "variant", "graph", "loop : hoisted : unrolled, median (min)"), rows, figures=0)


def lstm_int8(path: Path, _: str | None) -> str:
    """The forms of the LSTM in one INT8 encoder."""
    result = read_json(path)
    rows = []
    for form, size in result["encoder_bytes"].items():
        times = (result["latency"][provider][form] for provider in ENGINES)
        told = result["accuracy"]["forms"][form]
        rows.append((
            form,
            f"{size / 1000:,.0f}",
            *(f"{each['over_weights']['median']:.2f} ({each['over_weights_min']:.2f})" for each in times),
            f"{told['top1']:.2%}", f"{told['flip_rate']:.2%}", f"{told['ece']:.4f}",
        ))  # fmt: skip
    return _table(("LSTM", "kB", *ENGINES.values(), "top-1", "flips", "ECE"), rows, figures=6)


def candidates(path: Path, _: str | None) -> str:
    """Ways to quantize, on which rows they were compared, and which are taken."""
    result = read_json(path)
    rows, parent = result["rows"], result["parent"]
    taken = ", ".join(f"`{form}` takes **{name}**" for form, name in result["chosen"].items())
    lines = [
        f"`{result['bundle']['name']}`, {rows['n']:,} rows of {rows['split']} without leaked ones; FP32: top-1 "
        f"{parent['top1']:.2%}, ECE {parent['ece']:.4f}; agreement on",
        f"{rows['agreement']['size']:,} rows of {rows['agreement']['split']}. {taken}.",
        "",
    ]
    cells = [
        (
            each["name"], each["form"], f"{each['top1']:.2%}", f"{each['flip_rate']:.2%}", f"{each['mcnemar_p']:.2f}",
            f"{each['ece']:.4f}", f"{each['ece_rise']:+.4f}", f"{each['agreement']:.1%}",
        )
        for each in result["results"]
    ]  # fmt: skip
    names = ("candidate", "form", "top-1", "flips", "p", "ECE", "rise", "agreement")
    return "\n".join(lines) + "\n" + _table(names, cells, figures=6)


KINDS: dict[str, Callable[[Path, str | None], str]] = {
    "bench": bench,
    "costs": costs,
    "qat": qat,
    "pruning": pruning,
    "lstm": lstm_forms,
    "lstm-int8": lstm_int8,
    "candidates": candidates,
}


def _table(names: tuple[str, ...], rows: list[tuple[Any, ...]], *, figures: int) -> str:
    """A Markdown table whose last columns, as many as `figures`, are figures."""
    rule = ["---"] * (len(names) - figures) + ["--:"] * figures
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (names, rule, *rows))


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; status 1 where a guide says otherwise.")
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
            console.print(f"{name}: {'says otherwise than its results' if check else 'written anew'}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
