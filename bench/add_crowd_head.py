"""Add the head `crowd` of a finished run to a bundle, whose encoders and other head stay as they are.

    python bench/add_crowd_head.py base --run runs/base-crowd --data fer2013:PATH --out runs/bundles/base

The run comes from `fer-edge train base --init base --stage sequence --set 'heads=["crowd"]' ...`. The INT8 variants get
the head with compressed weights; the accuracy gate compares both heads of each with FP32 and ends the script at
the first variant that fails.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import click
from workbench import report_errors

from fer_edge.calibrate.evaluation import Evaluation, FloatParent
from fer_edge.calibrate.gate import GateRows, draw_agreement_rows, require_gates
from fer_edge.calibrate.int8_variants import Int8Graphs
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import update_bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.graph_card import with_cards
from fer_edge.core.manifest import CrowdHead, Variant
from fer_edge.core.provenance import read_provenance
from fer_edge.data import Dataset, load_dataset
from fer_edge.export.from_torch.graphs import check_graphs, graph_files, network_graphs
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import Graph
from fer_edge.graph.weight_compression import compress_head
from fer_edge.train.recipe import recorded
from fer_edge.train.run_folder import TrainRun


def add_crowd_head(source: Bundle, run: TrainRun, dataset: Dataset, out: Path) -> Bundle:
    """Copy a bundle to `out` with the run's head `crowd` in every variant."""
    model, _ = run.load_model()
    if model.crowd is None:
        raise InputError(f"{run.path}: got a run without the head 'crowd', expected one with it")
    graphs = network_graphs(model)
    check_graphs(model, graphs, 1e-3)  # logits of windows of noise reach tens
    measured, window = run.record["crowd"], run.recipe.sequence.window
    head = CrowdHead(
        graph=graph_files({"crowd": graphs["crowd"]}, window=window)["crowd"],
        temperature=measured["temperature"],
        unknown_threshold=measured["unknown_threshold"],
        not_judgeable_threshold=measured["not_judgeable_threshold"],
        metrics={measured["split"]: CrowdAccuracy.from_json(measured["choose"])},
    )
    shutil.copytree(source.path, out)
    bundle = Bundle.open(out)
    float32 = dataclasses.replace(bundle.variant("fp32"), crowd=head)
    frequencies = {**bundle.manifest.class_frequencies, **run.record["class_frequencies"]}
    manifest = dataclasses.replace(bundle.manifest.with_variant(float32), class_frequencies=frequencies)
    bundle = update_bundle(bundle, manifest, {head.graph.sha256: graphs["crowd"]})
    history = read_provenance(bundle)
    added: dict[str, bytes] = {}
    manifest = bundle.manifest
    for variant in bundle.manifest.variants:
        if variant.name == "fp32":
            continue
        made = history.calibration[variant.name]
        recipe = recorded(CalibrationRecipe, made.get("recipe") or made["calibration_recipe"])
        changed, data = _judged(bundle, variant, recipe, dataset, graphs["crowd"], window)
        manifest = manifest.with_variant(changed)
        added[sha256_bytes(data)] = data
    given = {file.sha256: bundle.read_graph(file) for file in bundle.manifest.graph_files.values()}
    manifest, carded = with_cards(manifest, {**given, **added})
    training = {**history.training, "heads": {**history.training.get("heads", {}), "crowd": run.training}}
    return update_bundle(bundle, manifest, carded, provenance=dataclasses.replace(history, training=training))


def _judged(
    bundle: Bundle, variant: Variant, recipe: CalibrationRecipe, dataset: Dataset, crowd: bytes, window: int
) -> tuple[Variant, bytes]:
    form = variant.name
    small = Graph.read(crowd, name="the head crowd")
    compress_head(small, form=form)  # type: ignore[arg-type]
    data = small.write(name=f"the {form} head crowd")
    source = FloatParent.open(bundle, dataset, recipe, threads=1, progress=None)
    outside = draw_agreement_rows(
        dataset, source.sample(dataset, recipe), size=recipe.gate.agreement_rows, seed=recipe.gate.agreement_seed
    )
    evaluation = Evaluation.of(source, GateRows.of(dataset, outside))
    graphs = Int8Graphs(
        form=form,  # type: ignore[arg-type]
        encoder=bundle.read_graph(variant.encoder),
        head=bundle.read_graph(variant.head),
        crowd=data,
    )
    judged = evaluation.judge(graphs, recipe)
    require_gates([(form, judged.gate)])
    assert judged.variant.crowd is not None
    head = dataclasses.replace(
        judged.variant.crowd, graph=graph_file(data, dimensions={"B": 1, "T": window}, name=f"the {form} head crowd")
    )
    how_made = {**variant.how_made, "gate": judged.gate.to_json()}
    return dataclasses.replace(variant, crowd=head, how_made=how_made), data


@click.command()
@click.argument("bundle")
@click.option("--run", "run_path", required=True, type=click.Path(path_type=Path), help="Run with the head crowd.")
@click.option("--data", required=True, help="Data set with FER+ votes.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New bundle folder.")
@report_errors
def main(bundle: str, run_path: Path, data: str, out: Path) -> None:
    """Add the head crowd of a run to a copy of BUNDLE."""
    made = add_crowd_head(Bundle.open(bundle), TrainRun.open(run_path), load_dataset(data), out)
    for variant in made.manifest.variants:
        assert variant.crowd is not None
        for split, figures in variant.crowd.metrics.items():
            click.echo(
                f"{variant.name} {split}: first choice {figures.first_choice_top1:.4f}, majority "
                f"{figures.majority_top1:.4f}"
            )


if __name__ == "__main__":
    main()
