"""Sweeps over tiny untrained bundles: measured once, reused, extended, refused; and the log of PrivateTest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SIZE, tiny_encoder, tiny_head, tiny_manifest, tiny_variant

from fer_edge.bench import run_bench
from fer_edge.bench.report import Timing
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.data import Dataset, StillSet
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.sweep.report import SweepReport
from fer_edge.sweep.run import SweepOptions, run_sweep, write_sweep

from .conftest import Notes, peer, peer_table

ROWS = 28
BRIEF = Timing(rounds=1, per_round=2, warm_up=0, batch=2)


def bundle(path: Path, name: str, *, variants: tuple[str, ...] = ("fp32", "int8"), seed: int = 1) -> str:
    encoder = tiny_encoder().SerializeToString()
    heads = [tiny_head(seed=seed + place).SerializeToString() for place in range(len(variants))]
    manifest = tiny_manifest(
        *(tiny_variant(variant, encoder, head) for variant, head in zip(variants, heads, strict=True))
    )
    graphs = {sha256_bytes(graph): graph for graph in (encoder, *heads)}
    create_bundle(path / name, replace(manifest, name=name), graphs)
    return str(path / name)


@pytest.fixture
def dataset() -> Dataset:
    generator = np.random.default_rng(3)

    def stills(name: str) -> StillSet:
        images = generator.integers(0, 256, (ROWS, SIZE, SIZE), dtype=np.uint8)
        return StillSet(name=name, images=images, labels=np.arange(ROWS) % 7, rows=np.arange(ROWS))

    splits = {name: stills(name) for name in ("Training", "PublicTest", "PrivateTest")}
    roles: dict[Any, str] = {"train": "Training", "choose": "PublicTest", "report": "PrivateTest"}
    return Dataset(name="fer2013", source="fer2013:made-up", layout="csv", splits=splits, roles=roles)


@pytest.fixture
def recipe(tmp_path: Path) -> SweepRecipe:
    names = (bundle(tmp_path, "one"), bundle(tmp_path, "two", variants=("fp32",), seed=7))
    return SweepRecipe(bundles=names, timing=BRIEF)


def sweep(recipe: SweepRecipe, dataset: Dataset, out: Path, **given: Any) -> SweepReport | None:
    options = SweepOptions(recipe_name="own.toml", **given)
    return run_sweep(recipe, dataset, out, options, progress=lambda what, done, total: None, note=Notes())


def test_every_bundle_in_every_precision_is_a_point(recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
    peers = peer_table(peer("slow and bad", 90.0, 0.0, 0.0), peer("fast and good", 1e-9, 100.0, 100.0))
    report = sweep(recipe, dataset, tmp_path / "out", peers=peers, command="fer-edge sweep own.toml")
    assert report is not None
    assert {each.name for each in report.points} == {"one/fp32", "one/int8", "two/fp32"}
    assert [each.x for each in report.points] == sorted(each.x for each in report.points)
    assert report.front
    assert report.missing == ("two/int8: the bundle has no such variant",)
    assert (report.split, report.n, report.role) == ("PublicTest", ROWS, "choose")
    assert {each.name: each.beaten_by is not None for each in report.peers} == {
        "slow and bad": True,
        "fast and good": False,
    }
    write_sweep(report, tmp_path / "out", plot=False)
    assert SweepReport.read(tmp_path / "out" / "pareto.json") == report


def test_measurements_are_reused(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, ...]] = []

    def counted(bundles: Any, **given: Any) -> Any:
        runs.append(tuple(each.manifest.name for each in bundles))
        return run_bench(bundles, **given)

    monkeypatch.setattr("fer_edge.sweep.run.run_bench", counted)
    first = sweep(recipe, dataset, tmp_path / "out")
    assert first is not None
    again = sweep(recipe, dataset, tmp_path / "out")
    assert again is not None
    assert again.points == first.points
    assert len(runs) == 1
    more = replace(recipe, bundles=(*recipe.bundles, bundle(tmp_path, "three", seed=9)))
    grown = sweep(more, dataset, tmp_path / "out")
    assert grown is not None
    assert len(grown.points) == len(first.points) + 2
    assert runs[1:] == [("one", "two", "three")], "all points of a provider come from one interleaved run"


def test_evaluations_of_private_test_are_logged(recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    sweep(recipe, dataset, tmp_path / "out", private_log=log)
    assert not log.exists()
    report = sweep(recipe, dataset, tmp_path / "out", private_log=log, split="report")
    assert report is not None
    assert report.split == "PrivateTest"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["bundle"], entry["variant"]) for entry in entries] == [
        ("one", "fp32"),
        ("one", "int8"),
        ("two", "fp32"),
    ]
    sweep(recipe, dataset, tmp_path / "out", private_log=log, split="report")
    assert len(log.read_text().splitlines()) == len(entries), "a reused measurement is no new evaluation"


class TestRefusals:
    def test_a_folder_of_something_else(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "photos.zip").write_text("")
        with pytest.raises(InputError, match="holds files but no sweep"):
            sweep(recipe, dataset, tmp_path / "out")

    def test_a_folder_of_another_sweep(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        sweep(recipe, dataset, tmp_path / "out")
        other = replace(recipe, train_settings=("optimiser.epochs=2",))
        with pytest.raises(InputError, match=r"sweep of the recipe 'own\.toml' with another train_settings"):
            sweep(other, dataset, tmp_path / "out")

    def test_a_folder_of_other_data(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        sweep(recipe, dataset, tmp_path / "out")
        less = replace(dataset, splits={**dataset.splits, "Training": dataset.splits["Training"].subset(np.arange(9))})
        with pytest.raises(InputError, match="other data"):
            sweep(recipe, less, tmp_path / "out")

    @pytest.mark.parametrize(
        "text", ["{}", '{"schema": 1, "recipe": {"bundle": []}, "data": {"sha256": ""}}', "no JSON"]
    )
    def test_a_damaged_record(self, text: str, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "sweep.json").write_text(text.replace('""', f'"{dataset.sha256}"'))
        with pytest.raises(InputError, match=r"sweep\.json is "):
            sweep(recipe, dataset, tmp_path / "out")

    def test_a_provider_or_a_bundle_that_is_not_to_be_had(
        self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="provider: got 'abacus'"):
            sweep(replace(recipe, providers=("abacus",)), dataset, tmp_path / "out")
        with pytest.raises(BundleError, match="got 'nowhere', which does not exist"):
            sweep(replace(recipe, bundles=("nowhere",)), dataset, tmp_path / "out")
        with pytest.raises(InputError, match="nothing to measure: one/int4"):
            sweep(replace(recipe, precisions=("int4",)), dataset, tmp_path / "out")


def test_a_sweep_of_bundles_needs_no_torch(recipe: SweepRecipe, tmp_path: Path) -> None:
    arguments = [
        "sweep",
        "zoo",
        "--data",
        "synthetic:70@1",
        "--out",
        str(tmp_path / "out"),
        "--set",
        'providers=["cpu"]',
    ]
    arguments += ["--set", f"bundles={json.dumps(recipe.bundles)}", "--set", "timing.rounds=1", "--json"]
    blocked = ("torch", "onnx", "nncf")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); from fer_edge.cli import main; main({arguments})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {each["network"] for each in json.loads(done.stdout)["points"]} == {"one", "two"}
